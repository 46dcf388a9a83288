"""What any kernel does to sets of Fourier modes: from probes, or from a spectrum that is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.progress import Progress
from dipkernels.base.seeds import generator
from dipkernels.base.statistics import mean_and_error
from dipkernels.errors import InvalidInputError
from dipkernels.images.axes import AXES, SHAPES

DEFAULT_PROBES = 3
LAYERS = "layer"


@runtime_checkable
class QuadraticForms(Protocol):
    """What a frequency response needs of a kernel, or of the kernels of all layers at once."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def quadratic_form(self, block: Tensor) -> Tensor:
        """Return forms of shape ``(k,)``, or ``(layers, k)``."""


@runtime_checkable
class KnownSpectrum(Protocol):
    """What a frequency response needs of a stationary kernel."""

    size: tuple[int, ...]

    def spectrum(self, which: str) -> Tensor:
        """Return the kernel's Fourier transform, of shape ``size``, in FFT order."""


AnyKernel = QuadraticForms | KnownSpectrum | xr.Dataset


@dataclass(frozen=True)
class Means:
    """Weighted means of a response over sets of modes."""

    values: np.ndarray
    errors: np.ndarray
    matvecs: float
    layers: list[str] | None = None

    @property
    def extra(self) -> tuple[str, ...]:
        """Dimensions besides that of the sets."""
        return () if self.layers is None else (LAYERS,)


class ProbedModes:
    """Modes under a kernel that is known by its quadratic forms."""

    def __init__(
        self,
        kernel: QuadraticForms,
        shape: tuple[int, ...],
        probes: int,
        seed: int,
        size: tuple[int, ...] | None = None,
    ) -> None:
        if len(shape) - 1 not in AXES or math.prod(shape) != kernel.shape[0]:
            raise InvalidInputError(
                f"shape {tuple(shape)} doesn't fit a kernel of size {kernel.shape[0]}: expected "
                f"{SHAPES}"
            )
        if probes < 2:
            raise InvalidInputError(f"at least 2 probes are needed for an error bar, got {probes}")
        self.kernel, self.shape, self.probes, self.seed = kernel, tuple(shape), probes, seed
        self.size = tuple(shape[1:]) if size is None else size

    def means(self, weights: Sequence[np.ndarray], label: str, *, progress: bool = False) -> Means:
        """Average the response over sets of modes and the channels."""
        values, errors, spent = [], [], 0
        with Progress(len(weights), label, enabled=progress) as bar:
            for index, weight in enumerate(weights):
                block, exact = self._probes(np.asarray(weight, dtype=float), index)
                block = block.to(self.kernel.device, self.kernel.dtype)
                forms = self.kernel.quadratic_form(block).cpu().double()
                mean, error = mean_and_error(forms.movedim(-1, 0))
                values.append(mean.numpy())
                errors.append(np.zeros(mean.shape) if exact else error.numpy())
                spent += block.shape[1]
                bar.advance()
        named = getattr(self.kernel, "names", range(np.size(values[0])))
        layers = [str(name) for name in named] if np.ndim(values[0]) else None
        return Means(np.array(values), np.array(errors), spent / 2, layers)

    def _probes(self, weight: np.ndarray, index: int) -> tuple[Float[Tensor, "n k"], bool]:
        # Columns whose mean quadratic form is the weighted mean response; whether that is exact.
        # Works in the Hartley basis (cos + sin), which is real and orthonormal and spans the same
        # space as the Fourier modes of a set, since it holds -k with every k.
        channels, inside = self.shape[0], torch.from_numpy(weight > 0)
        roots = torch.from_numpy(np.sqrt(weight / (channels * weight.sum())))
        rank = channels * int(inside.sum())
        if rank <= self.probes:
            units = torch.eye(rank, dtype=torch.float64).reshape(rank, channels, -1)
            coefficients = torch.zeros(rank, channels, *weight.shape, dtype=torch.float64)
            coefficients[:, :, inside] = units
            coefficients *= rank**0.5 * roots
        else:
            stream = generator(f"ring-{index}", self.seed)
            signs = torch.randint(0, 2, (self.probes, channels, *weight.shape), generator=stream)
            coefficients = (2.0 * signs - 1).double() * roots
        axes = tuple(range(-len(self.size), 0))
        spectrum = torch.fft.fftn(coefficients, dim=axes, norm="ortho")
        modes = self._embedded(spectrum.real - spectrum.imag)
        return modes.reshape(len(modes), -1).T, rank <= self.probes

    def _embedded(self, modes: Tensor) -> Tensor:
        if self.size == self.shape[1:]:
            return modes
        whole = modes.new_zeros(len(modes), *self.shape)
        inside: Any = (..., *(slice(n) for n in self.size))
        whole[inside] = modes
        return whole


class KnownModes:
    """Modes of which every response is known."""

    def __init__(self, responses: np.ndarray, error: float) -> None:
        self.responses, self.error = responses, error
        self.size = tuple(responses.shape)

    def means(self, weights: Sequence[np.ndarray], label: str, *, progress: bool = False) -> Means:
        """Average the response over sets of modes."""
        del label, progress
        values = np.array([(self.responses * w).sum() / np.sum(w) for w in weights])
        return Means(values, np.full(len(values), self.error), 0.0)


def modes_of(
    kernel: AnyKernel,
    shape: tuple[int, ...] | None,
    *,
    which: str | None,
    probes: int | None,
    seed: int,
) -> ProbedModes | KnownModes:
    """Find out how the modes under a kernel are to be had."""
    if isinstance(kernel, QuadraticForms):
        if which is not None:
            raise InvalidInputError(
                f"which={which!r} is for stationary kernels, which are two; an operator is one"
            )
        whole = getattr(kernel, "ntk", kernel)  # of which the kernels of layers are parts
        found = tuple(getattr(whole, "image_shape", ())) if shape is None else tuple(shape)
        if not found:
            raise InvalidInputError(
                f"a {type(kernel).__name__} doesn't know the shape of its images: pass shape, "
                f"{SHAPES}"
            )
        return ProbedModes(kernel, found, DEFAULT_PROBES if probes is None else probes, seed)
    if not isinstance(kernel, KnownSpectrum | xr.Dataset):
        raise InvalidInputError(
            "expected a symmetric operator, the kernels of layers, a StationaryKernel or a dataset "
            f"of kernels.covariance, got a {type(kernel).__name__}"
        )
    if shape is not None or probes is not None:
        raise InvalidInputError(
            f"shape and probes have no effect with a {type(kernel).__name__}, whose response is "
            "known for every frequency: leave them out"
        )
    if isinstance(kernel, xr.Dataset):
        if which is not None:
            raise InvalidInputError(f"which={which!r} is for stationary kernels: leave it out")
        return KnownModes(lag_spectrum(kernel), math.nan)
    if which not in ("covariance", "ntk"):
        raise InvalidInputError(
            f"a stationary kernel is two: say which, 'covariance' or 'ntk'; got {which!r}"
        )
    return KnownModes(kernel.spectrum(which).detach().cpu().double().numpy(), 0.0)


def lag_spectrum(dataset: xr.Dataset) -> np.ndarray:
    """Response of a stationary kernel at every frequency, from its values at lags."""
    dims = [str(dim) for dim in dataset["kernel"].dims] if "kernel" in dataset else []
    if not any(dim.startswith("lag_") for dim in dims):
        raise InvalidInputError(
            "expected a result of kernels.covariance, with kernel(lag_x) or kernel(lag_y, lag_x); "
            f"got {[str(name) for name in dataset.data_vars]}"
        )
    kernel: Any = dataset["kernel"]
    if "other_channel" in kernel.dims:
        same = [kernel.isel(channel=i, other_channel=i) for i in range(kernel.sizes["channel"])]
        kernel = xr.concat(same, dim="channel")
    if "channel" in kernel.dims:
        kernel = kernel.mean("channel")
    values = kernel.values
    for axis, dim in enumerate(kernel.dims):
        lags = dataset[dim].values.astype(int)
        pixels = int(dataset["second_moment"].sizes[str(dim).removeprefix("lag_")])
        torus = dataset.attrs["boundary"] == "circular" and len(lags) == pixels
        side = pixels if torus else int(lags.max()) + 1
        weights = np.ones(len(lags)) if torus else 1 - np.abs(lags) / side
        moved = np.moveaxis(values, axis, 0)
        folded = np.zeros((side, *moved.shape[1:]))
        np.add.at(folded, lags % side, moved * weights.reshape(-1, *[1] * (moved.ndim - 1)))
        values = np.moveaxis(folded, 0, axis)
    return np.asarray(np.fft.fftn(values).real)
