"""Moments of a network's parameters, measured on its own initialiser."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.priors.prior import ImagePrior, Parameters
from dipkernels.priors.stateless import parameters_of

FIRST_DRAWS, MOST_DRAWS = 8, 512
MOST_NUMBERS = 2**24  # drawn in all: 512 draws of 32,768 parameters
SCORE = 5.0  # standard errors within which a measured moment is one that is known
USUAL = 3.0  # the same, where there is more than one that is known
WANTED = 0.01  # relative standard error of a variance that isn't one of the usual
EDGE = 12.0  # of n uniform values the largest comes so many n-ths near its bound: but for 6e-6


@dataclass(frozen=True)
class Moments:
    """Of a parameter's entries over all draws; the variance is about zero, its error relative."""

    count: int
    mean: float
    variance: float
    error: float
    least: float
    most: float

    @property
    def constant(self) -> bool:
        """Whether nothing of it is random."""
        return self.least == self.most


class Initialisations:
    """Draws of all parameters of a network, trained and frozen, of which the moments are kept.

    More are made when a variance isn't known well enough.
    """

    def __init__(self, prior: ImagePrior, seed: int) -> None:
        self._prior, self._seed = prior, seed
        self.trained: Parameters = {}  # of the first draw
        self.first: Parameters = {}
        self._sums: dict[str, list[torch.Tensor]] = {}
        self._changed: set[str] = set()
        self.count = 0
        self.more(FIRST_DRAWS)

    def more(self, most: int) -> bool:
        """Make up to so many draws more; tell whether there were any."""
        numbers = sum(value.numel() for value in self.first.values()) or 1
        left = min(MOST_DRAWS - self.count, MOST_NUMBERS // numbers - self.count)
        number = min(most, left) if self.count >= 2 else most
        for index in range(self.count, self.count + max(number, 0)):
            seed = derive(f"variance-{index}", self._seed)
            module = self._prior._built(seed)
            drawn = parameters_of(module, trainable=True)
            drawn |= parameters_of(module, trainable=False)
            if not self.first:
                self.first = {key: value.clone() for key, value in drawn.items()}
                place, kind = self._prior.device, self._prior.dtype
                names = self._prior.parameter_shapes
                self.trained = {key: self.first[key].to(place, kind) for key in names}
            for key, value in drawn.items():
                x = value.flatten().double()
                powers = [x.sum(), x.square().sum(), x.pow(4).sum(), x.min(), x.max()]
                self._sums.setdefault(key, []).append(torch.stack(powers).cpu())
                if not torch.equal(value, self.first[key]):
                    self._changed.add(key)
        self.count += max(number, 0)
        return number > 0

    def random(self, name: str) -> bool:
        """Tell whether a parameter differs between draws."""
        return name in self._changed

    def moments(self, name: str) -> Moments:
        """Gather what is known of a parameter's entries."""
        rows = torch.stack(self._sums[name])
        each = self.first[name].numel()
        count = each * len(rows)
        mean, variance, fourth = (rows[:, :3].sum(dim=0) / count).tolist()
        error = 0.0
        if variance > 0 and name in self._changed:
            entries = math.sqrt(max(fourth / variance**2 - 1, 0) / count)
            # of entries that hang together, as in an orthogonal matrix or a common random scale
            whole = float((rows[:, 1] / each).std()) / math.sqrt(len(rows)) / variance
            error = max(entries, whole)
        low, high = float(rows[:, 3].min()), float(rows[:, 4].max())
        return Moments(count, mean, variance, error, low, high)


@dataclass(frozen=True)
class MeasuredVariance:
    """Variance of a parameter's entries; its relative standard error, 0 where it is known."""

    value: float
    error: float = 0.0
    draws: int = 0


def initial_variance(
    name: str,
    draws: Initialisations,
    fan_in: int,
    fan_out: int,
    *,
    default_fan: int,
    bias: bool = False,
    given: Mapping[str, float] | None = None,
) -> MeasuredVariance:
    """Find the variance of a parameter's entries, which must have mean zero."""
    if given is not None and name in given:
        return MeasuredVariance(float(given[name]))
    found = draws.moments(name)
    if found.variance == 0:
        return MeasuredVariance(0.0)
    if abs(found.mean) > SCORE * math.sqrt(found.variance / found.count):
        raise InvalidInputError(
            f"parameter '{name}' starts with mean {found.mean:.3g}, not 0: the theory is for "
            "random weights and biases of mean zero"
        )
    default = 1 / (3 * default_fan)
    schemes = [default] if bias else [default, 2 / fan_in, 1 / fan_in, 2 / (fan_in + fan_out)]
    for variance in schemes:
        if _uniform_to_the_bound(found, variance):
            return MeasuredVariance(variance)
    while found.error > WANTED and draws.more(draws.count):
        found = draws.moments(name)
    for variance in () if bias else (*schemes[1:], 0.02**2):
        if abs(found.variance / variance - 1) <= USUAL * found.error:
            known = found.error <= WANTED
            return MeasuredVariance(variance, 0.0 if known else found.error, draws.count)
    return MeasuredVariance(found.variance, found.error, draws.count)


def _uniform_to_the_bound(found: Moments, variance: float) -> bool:
    """Tell a uniform distribution by its bound, for which a few values are enough."""
    bound = math.sqrt(3 * variance) * (1 + 1e-6)
    reached = max(found.most, -found.least)
    near = bound * (1 - EDGE / found.count) <= reached <= bound
    return near and abs(found.variance / variance - 1) <= SCORE * math.sqrt(0.8 / found.count)


def check_given(given: Mapping[str, float] | None, names: Iterable[str]) -> dict[str, float]:
    """Check variances that the user knows."""
    known = list(names)
    for name, value in (given or {}).items():
        if name not in known:
            raise InvalidInputError(
                f"variances: no parameter is called '{name}'; there are {', '.join(known[:6])}"
            )
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not (math.isfinite(value) and value >= 0)
        ):
            raise InvalidInputError(
                f"variances['{name}'] must be the variance of one entry, a number that isn't "
                f"negative, got {value!r}"
            )
    return {name: float(value) for name, value in (given or {}).items()}
