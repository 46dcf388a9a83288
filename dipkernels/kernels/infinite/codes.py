"""Statistics of codes: the kernel that a network starts from."""

import functools
import math
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.priors import codes

KINDS = ("noise", "phases", "fourier", "empirical")
SCORE = 6.0  # standard scores beyond which a code is not what it is compared with
DISTANCE = 2.0  # of Kolmogorov's statistic, by the root of the number of values: chance 7e-4
FEWEST = 256  # values of which a distribution can be told
PEAK = 18.0  # of a periodogram's values, each exponential of mean 1: chance 1e-8
ENDS = 20  # n-ths of its width, within which n uniform values come near the ends


def code_kernel(
    code: Tensor,
    kind: str | StationaryKernel | Tensor | None,
    note: Callable[[str], None] = lambda remark: None,
) -> StationaryKernel:
    """Find the covariance of a code, averaged over its draws."""
    # Noise uniform on [0, 0.1]: 1/300 at lag 0, 1/400 elsewhere. Phases: 1/2 at lag 0, 0 elsewhere.
    # Fourier features: exp(-2 pi^2 s^2 |x|^2)/2 of the distance in image sides on the torus.
    # "empirical": products of the code's own values, averaged over channels and positions.
    grid = tuple(code.shape[2:])
    if isinstance(kind, Tensor):
        if tuple(kind.shape) != grid or not kind.is_floating_point():
            raise InvalidInputError(
                f"the code's covariance at each lag must have its grid's shape {grid}, lag 0 "
                f"first, got {kind.dtype} of shape {tuple(kind.shape)}"
            )
        kind = StationaryKernel.from_lags(kind)
    if isinstance(kind, StationaryKernel):
        if kind.size != grid:
            raise InvalidInputError(f"the code's kernel has size {kind.size}, the code {grid}")
        return kind
    values = code[0].double().cpu()
    if kind is None:
        found = recognised(values)
        if isinstance(found, tuple):
            mean, deviation, words = found
            note(words)
            return StationaryKernel.white(grid, variance=deviation**2, mean=mean)
        kind = found
    if kind == "noise":
        scale = codes.NOISE_SCALE
        return StationaryKernel.white(grid, variance=scale**2 / 12, mean=scale / 2)
    if kind == "phases":
        return StationaryKernel.white(grid, variance=0.5)
    if kind == "fourier":
        return StationaryKernel.from_lags(_fourier(grid))
    if kind == "empirical":
        axes = tuple(range(1, values.dim()))
        power = torch.fft.fftn(values, dim=axes).abs().square().mean(dim=0)
        moments = torch.fft.ifftn(power).real / math.prod(grid)
        return StationaryKernel.from_lags(moments, mean=float(values.mean()))
    raise InvalidInputError(
        f"code must be one of {', '.join(KINDS)}, a StationaryKernel, a tensor of lags or None; "
        f"got {kind!r}"
    )


def recognised(values: Tensor) -> str | tuple[float, float, str]:
    """Tell from its values how a code was made: a kind, or mean and deviation of white noise."""
    grid = tuple(values.shape[1:])
    if len(values) == len(grid) and torch.allclose(values, codes.meshgrid(grid).double()):
        raise InvalidInputError(
            "the code is a meshgrid: its values depend on the position, so that no kernel of the "
            "lag exists. Take code='noise' for the network, or measure its covariance instead"
        )
    half = len(values) // 2
    paired = len(values) == 2 * half and half > 0
    if paired and torch.allclose(
        values[:half].square() + values[half:].square(), torch.ones((), dtype=torch.float64)
    ):
        if _white(values):
            return "phases"
    elif _is_noise(values):
        return "noise"
    elif values.numel() >= FEWEST and _white(values):
        width, spread = float(values.max() - values.min()), float(values.std())
        # the likelier of both
        flat = math.log(width / spread) < 0.5 * math.log(2 * math.pi * math.e)
        found = (_uniform if flat else _normal)(values)
        if found is not None:
            return found
    raise InvalidInputError(
        "the code is not recognised as uniform or normal noise, or random phases: pass "
        "code='fourier' for Fourier features, code='empirical' for the moments of this very code "
        "as if it were stationary, or a StationaryKernel"
    )


def _uniform(values: Tensor) -> tuple[float, float, str] | None:
    low, high, n = float(values.min()), float(values.max()), values.numel()
    near = ENDS * (high - low) / n  # of the ends of the interval
    ends = [_round(low, near), _round(high, near)]
    width = ends[1] - ends[0]
    if not width > 0 or not _follows(values, stats.uniform(ends[0], width)):
        return None
    words = f"the code is taken for uniform noise on [{ends[0]:.6g}, {ends[1]:.6g}]"
    return sum(ends) / 2, width / math.sqrt(12), words


def _normal(values: Tensor) -> tuple[float, float, str] | None:
    n, mean, spread = values.numel(), float(values.mean()), float(values.std())
    mean = _round(mean, 4 * spread / math.sqrt(n))
    deviation = _round(spread, 3 * spread / math.sqrt(2 * n))
    if not deviation > 0 or not _follows(values, stats.norm(mean, deviation)):
        return None
    words = (
        f"the code is taken for normal noise of mean {mean:.6g} and standard deviation "
        f"{deviation:.6g}, from values that tell the latter to {1 / math.sqrt(2 * n):.1%}"
    )
    return mean, deviation, words


def _round(value: float, error: float) -> float:
    """Take the number of one digit that is meant, if one is within an error; else the value."""
    if abs(value) <= error:
        return 0.0
    short = float(f"{value:.0e}")
    return short if abs(short - value) <= error else value


def _follows(values: Tensor, distribution: object) -> bool:
    flat = values.flatten().numpy()
    statistic = stats.kstest(flat, distribution.cdf).statistic  # type: ignore[attr-defined]
    return bool(statistic * math.sqrt(len(flat)) < DISTANCE)


def _is_noise(values: Tensor) -> bool:
    scale, n = codes.NOISE_SCALE, values.numel()
    if values.min() < 0 or values.max() > scale * (1 + 1e-6):
        return False
    # Of a uniform variable: variance 1/12, and 1/180 of its squared deviation.
    mean = (values.mean() / scale - 0.5).abs() * math.sqrt(12 * n)
    spread = ((values / scale - 0.5).square().mean() - 1 / 12).abs() * math.sqrt(180 * n)
    return bool(mean < SCORE) and bool(spread < SCORE) and _white(values)


def _white(values: Tensor) -> bool:
    """Tell whether no lag but 0 correlates, and no channel or position has a mean of its own."""
    axes = tuple(range(1, values.dim()))
    centred = values - values.mean()
    variance = float(centred.square().mean())
    if not variance > 0:
        return False
    spectra = torch.fft.fftn(centred, dim=axes)
    lags = torch.fft.ifftn(spectra.abs().square().sum(dim=0)).real.flatten()[1:].abs() / variance
    if bool((lags > SCORE * math.sqrt(values.numel())).any()):
        return False
    # of the sum over channels, at each frequency, and of those over positions
    for power in (spectra.sum(dim=0), torch.fft.fft(centred.flatten(1).sum(dim=1))):
        found = power.abs().square() / (values.numel() * variance)
        if float(found.max()) > PEAK + math.log(found.numel()):
            return False
    return True


def _fourier(grid: tuple[int, ...]) -> Tensor:
    lines = [torch.arange(n, dtype=torch.float64) for n in grid]
    lines = [torch.minimum(r, len(r) - r) / max(len(r) - 1, 1) for r in lines]
    grids = torch.meshgrid(*(r.square() for r in lines), indexing="ij")
    squares = functools.reduce(torch.add, grids)
    return torch.exp(-2 * math.pi**2 * codes.FOURIER_SCALE**2 * squares) / 2
