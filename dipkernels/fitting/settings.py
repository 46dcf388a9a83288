"""What a fit does, apart from the network and the measurement: checked before anything runs."""

from dataclasses import asdict, dataclass, fields

from dipkernels.base.checks import as_annotated
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.regularisers import TOTAL_VARIATIONS
from dipkernels.fitting.schedules import SCHEDULES

OPTIMISERS = ("adam", "sgd", "gradient-descent", "l-bfgs")
PRECISIONS = ("float", "tf32", "bf16")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")


@dataclass(frozen=True)
class FitSettings:
    """The options of `dipkernels.fit` that decide its result; see there.

    Raises
    ------
    InvalidInputError
        If one is out of range, or would have no effect.
    """

    optimiser: str = "adam"
    learning_rate: float | None = None
    momentum: float | None = None
    schedule: str = "constant"
    iterations: int = 1000
    averaging: float = 0.99
    input_noise: float = 0.0
    weight_decay: float = 0.0
    total_variation_weight: float = 0.0
    total_variation: str | None = None
    gradient_clip: float | None = None
    backtracking: float | None = None
    precision: str = "float"
    channels_last: bool = False
    compile: str | None = None

    def __post_init__(self) -> None:
        self._require_types()
        self._require_choices()
        self._require_ranges()
        self._require_effects()

    def _require_types(self) -> None:
        for field in fields(self):
            value = as_annotated(field.name, getattr(self, field.name), field.type)
            object.__setattr__(self, field.name, value)

    def _require_choices(self) -> None:
        choices: dict[str, tuple[str, ...]] = {
            "optimiser": OPTIMISERS,
            "schedule": tuple(SCHEDULES),
            "precision": PRECISIONS,
        }
        if self.total_variation is not None:
            choices["total_variation"] = TOTAL_VARIATIONS
        if self.compile is not None:
            choices["compile"] = COMPILE_MODES
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise InvalidInputError(f"{name} must be one of {allowed}, got '{value}'")

    def _require_ranges(self) -> None:
        if self.iterations < 1:
            raise InvalidInputError(f"iterations must be at least 1, got {self.iterations}")
        if not 0 <= self.averaging < 1:
            raise InvalidInputError(f"averaging must be in [0, 1), got {self.averaging}")
        if self.momentum is not None and not 0 < self.momentum < 1:
            raise InvalidInputError(f"momentum must be in (0, 1), got {self.momentum}")
        for name in ("input_noise", "weight_decay", "total_variation_weight"):
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise InvalidInputError(f"{name} must be finite and not negative, got {value}")
        for name in ("learning_rate", "gradient_clip", "backtracking"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InvalidInputError(f"{name} must be positive and finite, got {value}")

    def _require_effects(self) -> None:
        if self.momentum is not None and self.optimiser != "sgd":
            raise InvalidInputError(
                f"momentum has no effect on '{self.optimiser}': use optimiser='sgd' or leave it out"
            )
        if self.total_variation is not None and not self.total_variation_weight:
            raise InvalidInputError(
                f"total_variation='{self.total_variation}' has no effect while "
                "total_variation_weight is 0: give the weight or leave it out"
            )
        if self.optimiser == "l-bfgs":
            for name in ("input_noise", "gradient_clip", "backtracking"):
                if getattr(self, name):
                    raise InvalidInputError(
                        f"{name} doesn't go with l-bfgs, whose line search needs one fixed "
                        "objective and its true gradient: leave it out or use another optimiser"
                    )
            if self.channels_last:
                raise InvalidInputError(
                    "channels_last doesn't go with l-bfgs, which lays all parameters out in one "
                    "vector: leave it out or use another optimiser"
                )
            if self.schedule != "constant":
                raise InvalidInputError(
                    f"schedule '{self.schedule}' doesn't go with l-bfgs, whose line search finds "
                    "the step: leave it out or use another optimiser"
                )

    @property
    def total_variation_kind(self) -> str:
        """The kind in use, anisotropic unless said otherwise."""
        return self.total_variation or TOTAL_VARIATIONS[1]

    def record(self) -> dict[str, str | int | float]:
        """List the settings, fit for the attributes of a dataset.

        Returns
        -------
        dict
            By name; those that are off (None) are left out, booleans are 0 or 1.
        """
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return {k: int(v) if isinstance(v, bool) else v for k, v in values.items()}
