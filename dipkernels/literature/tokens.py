"""Images cut into the patches of a network's tokens, and moments over pairs of tokens."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.base.statistics import RunningMoments
from dipkernels.errors import InvalidInputError
from dipkernels.networks.mixer import MLPMixer
from dipkernels.networks.outputs import ScaledSigmoid
from dipkernels.networks.swin import SwinTransformer
from dipkernels.networks.vit import VisionTransformer
from dipkernels.priors import ImagePrior

MOST_TOKENS = 2048


@checked
def patch_side(prior: ImagePrior) -> int:
    """Find the side of the patches that a prior's head makes.

    Parameters
    ----------
    prior : ImagePrior
        With a `VisionTransformer`, `SwinTransformer` or `MLPMixer` in it.

    Returns
    -------
    int
        In pixels; for a Swin transformer the side of its last stage's tokens.

    Raises
    ------
    InvalidInputError
        If it has none of these, or ends in a sigmoid.

    Examples
    --------
    >>> from dipkernels import networks
    >>> patch_side(networks.create("vit", image_size=64, output="none"))
    4
    """
    modules = list(prior.structure.modules())
    if any(isinstance(module, nn.Sigmoid | ScaledSigmoid) for module in modules):
        raise InvalidInputError(
            f"{prior} ends in a sigmoid, behind which nothing factorises: make it with "
            "output='none'"
        )
    for module in modules:
        if isinstance(module, VisionTransformer | MLPMixer):
            return int(module.patch_size)
        if isinstance(module, SwinTransformer):
            return int(module.stride)
    raise InvalidInputError(
        f"{prior} has no patch head: take 'vit', 'swin' or 'mixer', or pass side="
    )


def layout_of(prior: ImagePrior, side: int | None) -> tuple[int, tuple[int, int]]:
    """Lay a prior's image out in whole patches."""
    if len(prior.shape) != 3:
        raise InvalidInputError(f"patches are of images (channels, height, width), not {prior}")
    side = patch_side(prior) if side is None else side
    grid = (prior.shape[1] // side, prior.shape[2] // side) if side > 0 else (0, 0)
    tokens = grid[0] * grid[1]
    if not 1 <= tokens <= MOST_TOKENS:
        raise InvalidInputError(
            f"{prior} has {tokens} whole patches of side {side}; expected 1 to {MOST_TOKENS}: "
            "change the image's size"
        )
    return side, grid


def whole_patches(
    images: Tensor, side: int, grid: tuple[int, int]
) -> Shaped[Tensor, "batch tokens channels side side"]:
    """Cut images into patches; what is left at the bottom and right is dropped."""
    whole = images[..., : grid[0] * side, : grid[1] * side]
    split = whole.unflatten(3, (grid[1], side)).unflatten(2, (grid[0], side))
    patches: Tensor = split.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    return patches


class TokenMoments:
    """Mean over samples of Q, of its mean at each lag, and of its spectrum."""

    def __init__(self, grid: tuple[int, int]) -> None:
        self._grid = grid
        rows = torch.arange(grid[0]).repeat_interleave(grid[1])
        columns = torch.arange(grid[1]).repeat(grid[0])
        lag_row = rows[None] - rows[:, None] + grid[0] - 1
        lag_column = columns[None] - columns[:, None] + grid[1] - 1
        self._shape = (2 * grid[0] - 1, 2 * grid[1] - 1)
        self._where = (lag_row * self._shape[1] + lag_column).flatten()
        self._count = torch.bincount(self._where, minlength=self._shape[0] * self._shape[1])
        self._matrix, self._lagged, self._spectrum = (RunningMoments() for _ in range(3))

    def update(self, kernels: Float[Tensor, "batch tokens tokens"]) -> None:
        """Take in one Q for each sample."""
        kernels = kernels.detach().cpu().double()
        sums = torch.zeros(len(kernels), len(self._count), dtype=torch.float64)
        sums.index_add_(1, self._where, kernels.flatten(1))
        self._matrix.update(kernels)
        self._lagged.update((sums / self._count).unflatten(1, self._shape))
        self._spectrum.update(self._spectra(kernels))

    # e_k^T Q e_k of the grid's Fourier modes, as many as tokens.
    def _spectra(self, kernels: Tensor) -> Tensor:
        both = kernels.unflatten(2, self._grid).unflatten(1, self._grid)
        transformed = torch.fft.ifftn(torch.fft.fftn(both, dim=(1, 2)), dim=(3, 4))
        flat = transformed.flatten(3, 4).flatten(1, 2)
        values: Tensor = flat.diagonal(dim1=1, dim2=2).real.unflatten(1, self._grid)
        return values

    def dataset(self) -> xr.Dataset:
        """Give the estimates so far."""
        rows, columns = self._grid
        dataset = xr.Dataset(
            coords={
                "lag_row": np.arange(1 - rows, rows),
                "lag_column": np.arange(1 - columns, columns),
                "frequency_row": np.fft.fftfreq(rows),
                "frequency_column": np.fft.fftfreq(columns),
            }
        )
        for name in ("frequency_row", "frequency_column"):
            dataset[name].attrs["units"] = "cycles/patch"
        dataset = with_errors(dataset, "kernel", ("token", "other_token"), self._matrix)
        dataset = with_errors(dataset, "token_kernel", ("lag_row", "lag_column"), self._lagged)
        return with_errors(
            dataset, "spectrum", ("frequency_row", "frequency_column"), self._spectrum
        )


def with_errors(
    dataset: xr.Dataset, name: str, dims: tuple[str, ...], moments: RunningMoments
) -> xr.Dataset:
    """Add an estimate and its standard error to a dataset."""
    return dataset.assign(
        {
            name: (dims, moments.mean.cpu().numpy()),
            f"{name}_standard_error": (dims, moments.standard_error.cpu().numpy()),
        }
    )
