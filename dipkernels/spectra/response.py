"""Frequency response of a kernel: how strongly each spatial frequency is fitted."""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.linalg.estimates import mean_and_error
from dipkernels.progress import Progress
from dipkernels.seeds import generator


@runtime_checkable
class QuadraticForms(Protocol):
    """What a frequency response needs of a kernel, or of the kernels of all layers at once."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def quadratic_form(self, block: Tensor) -> Tensor:
        """Return forms of shape ``(k,)``, or ``(layers, k)``."""


def frequency_response(
    kernel: QuadraticForms,
    shape: tuple[int, int, int],
    *,
    edges: Sequence[float] | np.ndarray | None = None,
    probes: int = 3,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    """Measure the radial frequency response of a kernel over images.

    The response at a frequency k is ``e_k^T Theta e_k = |J^T e_k|^2``, ``e_k`` the unit-norm
    Fourier mode: the rate at which gradient descent fits it. A ring's value is its mean over the
    ring's frequencies and the channels, ``tr(P Theta P) / rank P``. Rings of few modes are
    summed exactly; for the others random signs on the modes give an unbiased estimate.

    Parameters
    ----------
    kernel : SymmetricOperator or LayerKernels
        Over flattened images ``(channels, height, width)``, of size n. Those of all layers cost no
        more than that of the network.
    shape : (channels, height, width)
        Of the images.
    edges : sequence of float, optional
        Ascending radii that separate the rings, in cycles per pixel; by default `ring_edges`. A
        radius that is an edge belongs to the ring above. The constant image has a ring of its own.
    probes : int
        Random probes per ring, at least 2 for an error bar.
    seed : int
        Of the probes.
    progress : bool
        Show a bar.

    Returns
    -------
    xarray.Dataset
        Over ``frequency`` (mean radius of each ring's modes, cycles per pixel): ``response`` with
        its ``standard_error`` (0 where exact; it's the probes' error, not a spread over the
        ring), and the number of ``modes`` of a channel. Attributes: ``half_power_frequency``,
        ``products`` (a quadratic form counted as one half, which it costs with an NTK). With layers
        the first two are over ``layer`` too, and ``half_power_frequency`` is a variable over it.

    Raises
    ------
    InvalidInputError
        If the shape isn't the kernel's, the edges don't ascend, or there are fewer than 2 probes.

    Notes
    -----
    Costs ``probes`` quadratic forms a ring, each half a product with an NTK. With ``B`` the kernel
    within the ring, ``P Theta P``, a ring's standard error relative to its value is at most
    ``sqrt(2 / probes) |B|_F / tr B``, which is ``sqrt(2 / (probes * rank P))`` where its
    eigenvalues are alike. It is 0 for a stationary kernel of one channel on a torus.
    """
    if math.prod(shape) != kernel.shape[0]:
        raise InvalidInputError(f"shape {shape} doesn't fit a kernel of size {kernel.shape[0]}")
    if probes < 2:
        raise InvalidInputError(f"at least 2 probes are needed for an error bar, got {probes}")
    radii = ring_edges(shape[1:]) if edges is None else np.asarray(edges, dtype=float)
    if not (np.diff(radii) > 0).all():
        raise InvalidInputError(f"the edges of rings must ascend, got {radii.tolist()}")
    radius = radial_frequency(shape[1:])
    rings = _rings(radius, radii)
    means, errors, spent = [], [], 0
    with Progress(len(rings), "frequency response", enabled=progress) as bar:
        for index, ring in enumerate(rings):
            block, exact = _ring_probes(ring, shape[0], probes, seed, index)
            forms = kernel.quadratic_form(block.to(kernel.device, kernel.dtype)).cpu().double()
            mean, error = mean_and_error(forms.movedim(-1, 0))
            means.append(mean.numpy())
            errors.append(np.zeros(mean.shape) if exact else error.numpy())
            spent += block.shape[1]
            bar.advance()
    dims = ("frequency", "layer")[: 1 + np.ndim(means[0])]
    dataset = xr.Dataset(
        {
            "response": (dims, np.array(means), {"long_name": "mean response of the ring"}),
            "standard_error": (dims, np.array(errors)),
            "modes": ("frequency", [int(ring.sum()) for ring in rings]),
        },
        {
            "frequency": (
                "frequency",
                [radius[ring].mean() for ring in rings],
                {"units": "cycles/pixel"},
            )
        },
        {"products": spent / 2},
    )
    if len(dims) == 1:
        return dataset.assign_attrs(half_power_frequency=half_power_frequency(dataset))
    names = getattr(kernel, "names", range(dataset.sizes["layer"]))
    halves = [half_power_frequency(dataset.isel(layer=i)) for i in range(len(names))]
    dataset = dataset.assign_coords(layer=list(names)).assign(
        half_power_frequency=("layer", halves)
    )
    return dataset.transpose("layer", "frequency")


def half_power_frequency(response: xr.Dataset) -> float:
    """Frequency at which a response has fallen to half of its lowest ring's.

    Parameters
    ----------
    response : xarray.Dataset
        As `frequency_response` returns. The constant image is left out: most networks fit it in
        a way of its own, through biases and the output non-linearity.

    Returns
    -------
    float
        Cycles per pixel, interpolated linearly; infinite if it never falls that far.
    """
    varying = response.isel(frequency=response.frequency.values > 0)
    f, r = varying.frequency.values, varying.response.values
    below = np.flatnonzero(r < r[0] / 2) if len(r) else np.array([])
    if len(below) == 0:
        return math.inf
    i = int(below[0])
    fraction = (r[i - 1] - r[0] / 2) / (r[i - 1] - r[i])
    return float(f[i - 1] + fraction * (f[i] - f[i - 1]))


def radial_frequency(size: tuple[int, int]) -> np.ndarray:
    """Radius of every discrete frequency of a grid.

    Parameters
    ----------
    size : (height, width)
        Of the grid.

    Returns
    -------
    ndarray, shape (height, width)
        Cycles per pixel, in FFT order; the corner has up to ``sqrt(1/2)``.
    """
    fy, fx = (np.fft.fftfreq(n) for n in size)
    return np.asarray(np.hypot(fy[:, None], fx[None, :]))


def ring_edges(size: tuple[int, int], count: int = 14) -> np.ndarray:
    """Default rings: one cycle wide at low frequencies, wider above, the corners included.

    Parameters
    ----------
    size : (height, width)
        Of the image.
    count : int
        Of rings, about.

    Returns
    -------
    ndarray
        Ascending radii in cycles per pixel; the last lies beyond the corner.
    """
    # In cycles per image: one-cycle rings, and a cubic term that brings the last to the corner.
    longest, steps = max(size), np.arange(count)
    growth = max(0.0, 0.75 * longest - 0.5 - count) / count**3
    edges = (0.5 + steps + growth * steps**3) / longest
    return np.append(edges[edges < 0.72], 0.75)


def _rings(radius: np.ndarray, edges: np.ndarray) -> list[np.ndarray]:
    constant = radius == 0
    which = np.digitize(radius, edges)
    rings = [(which == i) & ~constant for i in range(len(edges) + 1)]
    return [constant, *(ring for ring in rings if ring.any())]


def _ring_probes(
    ring: np.ndarray, channels: int, probes: int, seed: int, index: int
) -> tuple[Float[Tensor, "n k"], bool]:
    # Columns whose mean quadratic form is the ring's mean response; whether that is exact.
    # Works in the Hartley basis (cos + sin), which is real and orthonormal and spans the same
    # space as the Fourier modes of a ring, since a ring holds -k with every k.
    where = torch.from_numpy(ring)
    rank = channels * int(ring.sum())
    if rank <= probes:
        coefficients = torch.zeros(rank, channels, *ring.shape, dtype=torch.float64)
        coefficients[:, :, where] = torch.eye(rank, dtype=torch.float64).reshape(rank, channels, -1)
    else:
        stream = generator(f"ring-{index}", seed)
        signs = torch.randint(0, 2, (probes, channels, *ring.shape), generator=stream)
        coefficients = (2.0 * signs - 1).double() * where / rank**0.5
    spectrum = torch.fft.fft2(coefficients, norm="ortho")
    modes = spectrum.real - spectrum.imag
    return modes.reshape(len(modes), -1).T, rank <= probes
