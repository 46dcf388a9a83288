"""How much is spent on a fingerprint."""

from dataclasses import dataclass

from dipkernels.base.checks import checked
from dipkernels.base.options import check_options
from dipkernels.errors import InvalidInputError

LEAST = {
    "samples": 4,
    "iterations": 1,
    "descent": 1,
    "steps": 2,
    "positions": 2,
    "response_probes": 2,
    "comb_probes": 2,
}
RINGS, SECTORS, PERIODS = 15, 9, 3  # at most, of responses that are probed
NEIGHBOURS = 9  # rows beside each other, at most


@checked
@dataclass(frozen=True)
class FingerprintEffort:
    """How much is spent on one fingerprint.

    Attributes
    ----------
    samples : int
        Initialisations, for the spectrum, the comb and the covariance; at least 4.
    iterations : int
        Of the fit with Adam.
    descent : int
        Of gradient descent at half of its limit of stability.
    steps : int
        Of the prediction, of two products each; at least 2, and at most taken.
    positions : int
        Random pixels whose rows of the kernel make the shift variance; at least 2.
    response_probes : int
        Random probes for each ring of frequencies; at least 2.
    comb_probes : int
        For each period of the comb; at least 2.
    learning_rate : float or None
        Adam's. None: the published one, but at least 0.001. The transformers' is 0.0001 for 5000
        iterations; a card has a few hundred.

    Raises
    ------
    InvalidInputError
        If a number is too small.
    """

    samples: int = 32
    iterations: int = 300
    descent: int = 30
    steps: int = 150
    positions: int = 12
    response_probes: int = 3
    comb_probes: int = 8
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        check_options(self)
        for name, least in LEAST.items():
            if (value := getattr(self, name)) < least:
                raise InvalidInputError(f"{name} must be at least {least}, got {value}")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise InvalidInputError(
                f"learning_rate must be positive and finite, got {self.learning_rate}"
            )

    @property
    def matvecs(self) -> int:
        """With the kernel, in all; about, since small images have fewer rings and rows."""
        response = (RINGS + SECTORS) * self.response_probes / 2
        rows = NEIGHBOURS + self.positions + 1
        return round(response + PERIODS * self.comb_probes + rows + 2 * self.steps)
