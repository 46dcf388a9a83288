"""What a misfit is: the squared error, or the negative log-likelihood of another law of errors.

A misfit is a function of what a network's image would be measured as, the *prediction* ``A f``, and
of the measurement. A fit descends its mean over all entries; `WeightPosterior` has its sum as the
negative log-likelihood. Kernel theories are of the squared error alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.kinds import NotNegative, Positive
from dipkernels.base.seeds import generator
from dipkernels.base.words import suggest
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.tasks.inputs import is_rehearsal
from dipkernels.tasks.laws import SQUARES, Misfit, Squares

__all__ = ["Laplace", "Misfit", "Poisson", "Squares", "Weighted"]

DARK = 0.01  # photons: below, a Poisson misfit goes on as a parabola
POWERS = 20  # of power iteration, on the second derivative of one's own misfit


@checked
@dataclass(frozen=True)
class Laplace(Misfit):
    """Absolute error (L1): Laplace noise, in which large errors are not rare.

    A fit descends the mean of ``|A f - y|``. The likelihood of a posterior is that of Laplace noise
    of standard deviation ``noise_sigma``: ``sqrt(2) |A f - y| / noise_sigma`` summed over entries.

    Examples
    --------
    >>> Laplace().cost(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 0.0]))
    tensor([1., 3.])
    """

    name = "the absolute error"
    target = "sqrt(2) |y - A f(w)|_1 / noise_sigma"

    def cost(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """Take the absolute error."""
        return (prediction - measurement).abs()

    def scale(self, noise_sigma: float) -> float:
        """Give ``sqrt(2) / noise_sigma``."""
        return math.sqrt(2) / noise_sigma

    def curvature(self, prediction: Tensor, measurement: Tensor, sigma: float) -> Tensor:
        """Give the Fisher information, which is that of a kink blunted to the noise."""
        if not sigma > 0:
            raise InvalidInputError(
                "the absolute error has a kink and no curvature: give learning_rate=, or a task "
                "with noise_sigma, to which the kink is blunted"
            )
        return torch.full((), math.sqrt(2) / sigma).to(measurement)

    def draw(self, exact: Tensor, noise_sigma: float, random: torch.Generator) -> Tensor:
        """Add Laplace noise of that deviation."""
        # a difference of two exponential variables
        ends = torch.empty((2, *exact.shape), dtype=torch.float64).exponential_(generator=random)
        return exact + (noise_sigma / math.sqrt(2) * (ends[0] - ends[1])).to(exact)


@checked
@dataclass(frozen=True)
class Poisson(Misfit):
    """Counts of photons: a prediction p stands for ``peak (p + background)`` of them, on average.

    The measurement is the counts *over the peak*, so that it's in the units of the image: ``counts
    / peak``. With k the counts and m their mean, an entry costs ``m - k log m + (k log k - k)``,
    which is 0 at ``m = k``: the negative log-likelihood but for a constant, half of the deviance.
    The noise has no level of its own: ``Task.noise_sigma`` is 0.

    Parameters
    ----------
    peak : float
        Photons in an entry whose prediction is 1; positive.
    background : float
        Of dark counts and stray light, in units of the image, not negative; the measurement
        contains it.

    Notes
    -----
    The likelihood of a mean that isn't positive is 0. Below a hundredth of a photon the cost goes
    on as a parabola, with the value and the slope that it has there, so that a network whose images
    can be negative is driven back.

    Examples
    --------
    >>> photons = torch.tensor([0.0, 7.0])
    >>> Poisson(peak=100).cost(torch.tensor([0.01, 0.07]), photons / 100).round(decimals=4).abs()
    tensor([1., 0.])
    """

    peak: Positive
    background: NotNegative = 0.0
    name = "Poisson's"
    target = "sum of m - y peak log m, m = peak (A f(w) + background)"
    takes_sigma = False

    def cost(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """Give half of the deviance."""
        mean, counts = self.peak * (prediction + self.background), self.peak * measurement
        lit = mean.clamp(min=DARK)
        saturated = torch.special.xlogy(counts, counts) - counts
        bright = lit - counts * lit.log() + saturated
        below = (mean - DARK).clamp(max=0)
        slope, bend = 1 - counts / DARK, counts.clamp(min=1) / DARK**2
        found: Tensor = bright + slope * below + bend * below.square() / 2
        return found

    def scale(self, noise_sigma: float) -> float:
        """Give 1."""
        return 1.0

    def curvature(self, prediction: Tensor, measurement: Tensor, sigma: float) -> Tensor:
        """Give the Fisher information, ``peak^2 / m``."""
        mean = self.peak * (prediction + self.background)
        found: Tensor = self.peak**2 / mean.clamp(min=DARK)
        return found

    def deviation(self, exact: Tensor, noise_sigma: float) -> Tensor:
        """Give the root of the mean, over the peak."""
        return ((exact + self.background).clamp(min=0) / self.peak).sqrt()

    def draw(self, exact: Tensor, noise_sigma: float, random: torch.Generator) -> Tensor:
        """Draw counts, and divide them by the peak."""
        mean = (self.peak * (exact + self.background)).double().cpu()
        if float(mean.min()) < 0:
            raise ImageError(
                f"counts of photons have means that aren't negative; the operator makes "
                f"{float(exact.min()):.3g} of the image"
            )
        return (torch.poisson(mean, generator=random) / self.peak).to(exact)

    def check(self, measurement: Tensor) -> None:
        """Refuse negative counts."""
        if float(measurement.min()) < 0:
            raise ImageError(
                f"counts of photons aren't negative, the measurement has {measurement.min():.3g}: "
                "give counts / peak, the background included"
            )

    def in_units(self, factor: float) -> "Poisson":
        """Let another white stand for as many photons."""
        return replace(self, peak=self.peak / factor, background=self.background * factor)


@checked
@dataclass(frozen=True)
class OwnMisfit(Misfit):
    """A function of yours: the negative log-likelihood of one measurement, given the prediction.

    Examples
    --------
    >>> huber = OwnMisfit(lambda p, y: torch.nn.functional.huber_loss(p, y, reduction="sum"))
    >>> huber.total(torch.tensor([[0.0, 4.0]]), torch.tensor([0.0, 1.0]))
    tensor([2.5000])
    """

    function: Callable[[Tensor, Tensor], Any]
    unit: float = 1.0  # white, in the units of a task
    takes_sigma = False
    by_entry = False
    target = "what the function says"

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of the function."""
        named = getattr(self.function, "__name__", type(self.function).__name__)
        return f"your own ({named})"

    def cost(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """Spread the whole evenly over the entries."""
        total = self.total(prediction, measurement) / measurement.numel()
        batch = prediction.dim() - measurement.dim()
        return total.reshape(*total.shape, *[1] * measurement.dim()).expand(
            *prediction.shape[:batch], *measurement.shape
        )

    def total(self, prediction: Tensor, measurement: Tensor) -> Float[Tensor, "..."]:
        """Call the function on every image of a batch."""
        batch = prediction.shape[: prediction.dim() - measurement.dim()]
        rows = prediction.reshape(-1, *measurement.shape) / self.unit
        try:
            found = torch.stack([self._called(row, measurement / self.unit) for row in rows])
        except InvalidInputError:
            if not is_rehearsal(prediction):
                raise
            return prediction.flatten(len(batch)).sum(dim=-1)
        return found.reshape(batch)

    def _called(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        try:
            found = self.function(prediction, measurement)
        except Exception as error:  # whatever the function raises
            raise InvalidInputError(
                f"the misfit is {self.name}, which failed on shape {tuple(measurement.shape)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, Tensor) or found.numel() != 1 or not found.is_floating_point():
            shape = f"a {type(found).__name__}"
            if isinstance(found, Tensor):
                shape = f"a tensor of shape {tuple(found.shape)}"
            raise InvalidInputError(
                f"the misfit is {self.name}, which must return one real number as a tensor, the "
                f"negative log-likelihood of all entries, got {shape}"
            )
        return found.reshape(()).to(prediction)

    def scale(self, noise_sigma: float) -> float:
        """Give 1."""
        return 1.0

    def curvature(self, prediction: Tensor, measurement: Tensor, sigma: float) -> Tensor:
        """Give the largest second derivative, by power iteration."""
        at = prediction.detach().clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.total(at, measurement), at, create_graph=True)
            step = torch.randn(at.shape, generator=generator("own misfit", 0)).to(at)
            largest = at.new_zeros(())
            for _ in range(POWERS if slope.requires_grad else 0):
                step = step / step.norm().clamp(min=1e-30)
                (step,) = torch.autograd.grad(slope, at, step, retain_graph=True)
                largest = torch.maximum(largest, step.norm())
        if not float(largest) > 0:
            raise InvalidInputError(
                f"the misfit is {self.name}, which has no curvature here from which a step could "
                "be chosen: give the step (learning_rate= of a fit, step_size= of chains)"
            )
        return largest.detach()

    def draw(self, exact: Tensor, noise_sigma: float, random: torch.Generator) -> Tensor:
        """Add white Gaussian noise."""
        return Squares().draw(exact, noise_sigma, random)

    def in_units(self, factor: float) -> "OwnMisfit":
        """Call the function in the units that it was written for."""
        return replace(self, unit=self.unit * factor)


@checked
@dataclass(frozen=True, eq=False)
class Weighted:
    """Squared error, some entries of which count more: Gaussian noise of several levels.

    A task with it is an ordinary one whose operator and measurement are multiplied by the roots of
    the weights, so that kernels and Gaussian processes take it, exactly.

    Parameters
    ----------
    weights : Tensor, shape of the measurement
        Positive; only their ratios to ``noise_sigma`` count: an entry's noise has the standard
        deviation ``noise_sigma / sqrt(weight)``.

    Raises
    ------
    InvalidInputError
        If a weight isn't positive and finite.
    """

    weights: Float[Tensor, "..."]

    def __post_init__(self) -> None:
        if not bool((self.weights.isfinite() & (self.weights > 0)).all()):
            raise InvalidInputError(
                "weights must be positive and finite: leave entries out by a mask, or hold them out"
            )

    @property
    def roots(self) -> Float[Tensor, "..."]:
        """What operator and measurement are multiplied by."""
        return self.weights.sqrt()


NAMED: dict[str, Misfit] = {"squares": SQUARES, "l1": Laplace()}


def as_misfit(given: Any) -> Misfit:
    """Make a misfit out of a name or a function."""
    if isinstance(given, Misfit):
        return given
    if isinstance(given, str):
        if given.startswith("poisson"):
            raise InvalidInputError(
                "a Poisson misfit needs the photons that white stands for: "
                "misfit=dipkernels.tasks.misfits.Poisson(peak=1000)"
            )
        if given not in NAMED:
            raise InvalidInputError(f"unknown misfit '{given}': {suggest(given, NAMED)}")
        return NAMED[given]
    if not callable(given):
        raise InvalidInputError(
            f"a misfit is a name ({', '.join(NAMED)}), one of dipkernels.tasks.misfits, or a "
            f"function of prediction and measurement, got {type(given).__name__}"
        )
    return OwnMisfit(given)
