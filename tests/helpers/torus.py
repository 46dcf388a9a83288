"""Networks on a torus, whose kernels at finite width can be held against the theory."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import jacrev

from dipkernels.base.seeds import generator
from dipkernels.networks import ImagePrior
from dipkernels.priors import codes


class CircularUpsample(nn.Module):
    """`torch.nn.Upsample` by 2, with borders that are joined."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        dims = x.dim() - 2
        wide = nn.functional.pad(x, (1, 1) * dims, mode="circular")
        fine = nn.functional.interpolate(wide, scale_factor=2, mode=self.mode)
        return fine[(..., *(slice(2, -2),) * dims)]


def circular(module: nn.Module) -> nn.Module:
    """Replace every upsampling within a module by that of a torus."""
    for name, part in module.named_children():
        if isinstance(part, nn.Upsample):
            setattr(module, name, CircularUpsample(part.mode))
        else:
            circular(part)
    return module


def torus_prior(
    build: Callable[[], nn.Module], channels: int, grid: tuple[int, ...], seed: int, **options: str
) -> ImagePrior:
    """Make a prior of a network and a new draw of its code, in float64."""
    code = codes.noise(channels, grid, generator("code", seed))[None]
    return ImagePrior(lambda: circular(build()), code, **options).to(dtype=torch.float64)


def measured(
    prior_of: Callable[[int], ImagePrior], seeds: range, period: int, *, tangent: bool = True
) -> tuple[Tensor, Tensor]:
    """Average second moments and tangent kernels over initialisations, codes and shifts."""
    covariance, ntk, size = 0, 0, ()
    samples = len(seeds)
    for seed in seeds:
        prior = prior_of(seed)
        parameters = prior.init(seed)
        image = prior.image(parameters)
        size, n = image.shape[1:], image[0].numel()
        flat = image.reshape(len(image), n)
        covariance = covariance + flat.T @ flat / (len(image) * samples)
        if tangent:
            jacobian = jacrev(lambda p, prior=prior: prior.image(p)[0])(parameters)
            rows = torch.cat([part.reshape(n, -1) for part in jacobian.values()], dim=1)
            ntk = ntk + rows @ rows.T / samples
    return _shift_averaged(covariance, size, period), _shift_averaged(ntk, size, period)


def _shift_averaged(matrix: Tensor | int, size: tuple[int, ...], period: int) -> Tensor:
    if isinstance(matrix, int):
        return torch.zeros(())
    full = matrix.reshape(*size, *size)
    for axis, n in enumerate(size):
        moves = [full.roll((t, t), (axis, axis + len(size))) for t in range(0, n, period)]
        full = torch.stack(moves).mean(dim=0)
    return full.reshape(math.prod(size), -1)
