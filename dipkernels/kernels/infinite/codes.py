"""Statistics of codes: the kernel that a network starts from."""

import functools
import math

import torch
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.priors import codes

KINDS = ("noise", "phases", "fourier", "empirical")
SCORE = 6.0  # standard scores beyond which a code is not what it is compared with


def code_kernel(code: Tensor, kind: str | StationaryKernel | None) -> StationaryKernel:
    """Find the covariance of a code, averaged over its draws."""
    # Noise uniform on [0, 0.1]: 1/300 at lag 0, 1/400 elsewhere. Phases: 1/2 at lag 0, 0 elsewhere.
    # Fourier features: exp(-2 pi^2 s^2 |x|^2)/2 of the distance in image sides on the torus.
    # "empirical": products of the code's own values, averaged over channels and positions.
    grid = tuple(code.shape[2:])
    if isinstance(kind, StationaryKernel):
        if kind.size != grid:
            raise InvalidInputError(f"the code's kernel has size {kind.size}, the code {grid}")
        return kind
    values = code[0].double().cpu()
    kind = recognised(values) if kind is None else kind
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
        f"code must be one of {', '.join(KINDS)}, a StationaryKernel or None; got {kind!r}"
    )


def recognised(values: Tensor) -> str:
    """Tell from its values how a code was made."""
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
    raise InvalidInputError(
        "the code is not recognised as uniform noise or random phases: pass code='fourier' for "
        "Fourier features, code='empirical' for the moments of this very code as if it were "
        "stationary, or a StationaryKernel"
    )


def _is_noise(values: Tensor) -> bool:
    scale, n = codes.NOISE_SCALE, values.numel()
    if values.min() < 0 or values.max() > scale * (1 + 1e-6):
        return False
    # Of a uniform variable: variance 1/12, and 1/180 of its squared deviation.
    mean = (values.mean() / scale - 0.5).abs() * math.sqrt(12 * n)
    spread = ((values / scale - 0.5).square().mean() - 1 / 12).abs() * math.sqrt(180 * n)
    return bool(mean < SCORE) and bool(spread < SCORE) and _white(values)


def _white(values: Tensor) -> bool:
    centred = values - values.mean()
    variance = centred.square().mean()
    for axis in range(1, values.dim()):
        if values.shape[axis] < 2:
            continue
        correlation = (centred * centred.roll(1, axis)).mean() / variance
        if correlation.abs() * math.sqrt(values.numel()) > SCORE:
            return False
    return True


def _fourier(grid: tuple[int, ...]) -> Tensor:
    lines = [torch.arange(n, dtype=torch.float64) for n in grid]
    lines = [torch.minimum(r, len(r) - r) / max(len(r) - 1, 1) for r in lines]
    grids = torch.meshgrid(*(r.square() for r in lines), indexing="ij")
    squares = functools.reduce(torch.add, grids)
    return torch.exp(-2 * math.pi**2 * codes.FOURIER_SCALE**2 * squares) / 2
