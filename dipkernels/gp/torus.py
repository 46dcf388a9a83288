"""A covariance over the pixels of an image: a window on a torus, by the FFT, or a matrix."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.gp.lags import LagKernel, log_lengthscale_derivative
from dipkernels.images.axes import AXES, SIZES
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.kernels.stationary.blocks import block_matrices, dense_matrix, multiply_blocks

ROUNDING = 1e-12  # of the largest eigenvalue: negative ones up to here are set to 0
_REACH = 1e-17  # of the variance: covariances below it are nothing in float64
_LARGEST = 4  # times the smallest torus: so far one is enlarged in search of a definite spectrum
_COPIES = 64
_TOGETHER = 256 * 2**20  # bytes of the fields that are worked on at once

Spectral = Callable[[Tensor], Tensor]
Size = tuple[int, ...]


class TorusCovariance:
    """A covariance matrix ``K`` over a torus, and an image of which the torus is the completion.

    Its table ``(*period, *torus)`` is that of a `StationaryKernel`; the image, of ``size``, lies at
    the torus's origin. ``eigenvalues`` are those of ``K``, as they are: of shape ``(*torus)`` for a
    stationary kernel, else those of the blocks. ``negativity`` is the most negative one over the
    largest, as a positive number, 0 if there is none: beyond `ROUNDING` no process on this torus
    has this covariance, though one on the image may.
    """

    def __init__(self, table: Float[Tensor, "*table"], size: Size) -> None:
        dims = table.dim() // 2
        self.period, self.torus = tuple(table.shape[:dims]), tuple(table.shape[dims:])
        self.size = size
        self.device = table.device
        self._axes = tuple(range(-dims, 0))
        self._vectors: Tensor | None = None
        self._table = table
        if math.prod(self.period) == 1:
            self.eigenvalues = torch.fft.fftn(table.reshape(self.torus)).real
            self._half = self.eigenvalues[..., : self.torus[-1] // 2 + 1].contiguous()
        else:
            blocks = block_matrices(table)
            blocks = (blocks + blocks.mH) / 2
            self.eigenvalues, self._vectors = torch.linalg.eigh(blocks)
        top = max(float(self.eigenvalues.max()), 1e-300)
        self.negativity = max(0.0, -float(self.eigenvalues.min()) / top)

    @property
    def whole(self) -> bool:
        """Whether the image is all of the torus."""
        return self.torus == self.size

    @property
    def filters(self) -> bool:
        """Whether the eigenvectors are the Fourier modes of the torus, in the order of `rfftn`."""
        return self._vectors is None

    @property
    def definite(self) -> bool:
        """Whether a process on the torus has this covariance, up to rounding."""
        return self.negativity <= ROUNDING

    @property
    def variance(self) -> Float[Tensor, "*size"]:
        """Of each pixel of the image."""
        return self.diagonal(same)

    def function(self, function: Spectral) -> Spectral:
        """Prepare products with a function of the matrix, given on its eigenvalues."""
        # From (*batch, *size) or (*batch, *torus) to (*batch, *torus).
        if self._vectors is None:
            values = function(self._half)

            def multiply(x: Tensor) -> Tensor:
                modes = torch.fft.rfftn(x, s=self.torus, dim=self._axes)
                out: Tensor = torch.fft.irfftn(modes.mul_(values), s=self.torus, dim=self._axes)
                return out

            return multiply
        scaled = self._vectors * function(self.eigenvalues)[:, None, :]
        blocks = scaled @ self._vectors.mH

        def multiply_phases(x: Tensor) -> Tensor:
            rows = self.embed(x).reshape(-1, *self.torus)
            out = multiply_blocks(blocks, rows, self.period).real
            return out.reshape(*x.shape[: x.dim() - len(self.torus)], *self.torus)

        return multiply_phases

    def diagonal(self, function: Spectral) -> Float[Tensor, "*size"]:
        """Diagonal of a function of the matrix at the image's pixels, exactly."""
        values = function(self.eigenvalues)
        if self._vectors is None:
            return values.mean().expand(self.size)
        phases = (self._vectors.abs().square() * values[:, None, :]).sum(dim=2).mean(dim=0)
        phases = phases.reshape(self.period)
        counts = [-(-n // t) for n, t in zip(self.size, self.period, strict=True)]
        return phases.repeat(counts)[tuple(slice(n) for n in self.size)]

    def powers(self, x: Float[Tensor, "*torus"]) -> Tensor:
        """Squared coefficients of a field in the eigenvectors, of the shape of `eigenvalues`."""
        if self._vectors is None:
            spectrum: Tensor = torch.fft.fftn(x).abs().square() / x.numel()
            return spectrum
        fields, dims = x, len(self.torus)
        for axis, t in enumerate(self.period):
            fields = fields.unflatten(2 * axis, (-1, t))
        order = [*range(0, 2 * dims, 2), *range(1, 2 * dims, 2)]
        modes = torch.fft.fftn(fields.permute(order), dim=tuple(range(dims)), norm="ortho")
        rows = modes.reshape(len(self._vectors), -1, 1).to(self._vectors.dtype)
        powers: Tensor = (self._vectors.mH @ rows)[..., 0].abs().square()
        return powers

    def embed(self, x: Float[Tensor, "*image"]) -> Float[Tensor, "*torus"]:
        """Put images on the torus, zeros around them; fields on the torus pass as they are."""
        axes = zip(reversed(self.torus), reversed(x.shape[-len(self.torus) :]), strict=True)
        return torch.nn.functional.pad(x, [p for n, m in axes for p in (0, n - m)])

    def crop(self, x: Float[Tensor, "*torus"]) -> Float[Tensor, "*image"]:
        """Take the image out of fields on the torus."""
        inside: Any = (..., *(slice(n) for n in self.size))
        return x[inside]

    def draw(self, shape: Size, random: torch.Generator) -> Float[Tensor, "*fields"]:
        """Draw the process on the torus, ``(*shape, *torus)``."""
        if not self.definite:
            raise InvalidInputError(
                f"this kernel has no process on its torus of {_by(self.torus)}: an eigenvalue is "
                f"-{self.negativity:.1e} of the largest. The posterior mean needs none, draws do: "
                "take a kernel that falls off within the image, or one that is positive "
                "semi-definite on a larger torus"
            )
        white = torch.randn(*shape, *self.torus, dtype=torch.float64, generator=random)
        return self.function(lambda v: v.clamp(min=0).sqrt())(white.to(self.device))

    def batches(self, n: int, channels: int) -> list[int]:
        """Split a number of draws, so that the fields of each part fit the memory."""
        at_once = max(1, _TOGETHER // (8 * 8 * channels * math.prod(self.torus)))
        return [min(at_once, n - start) for start in range(0, n, at_once)]

    def to_dense(self) -> Float[Tensor, "n n"]:
        """Form the matrix over the image's pixels, in the order of a flattened image."""
        return dense_matrix(self._table, self.size)


class DenseCovariance(TorusCovariance):
    """A covariance matrix, by its eigenvectors: the image is all there is."""

    filters = False

    def __init__(self, matrix: Float[Tensor, "n n"], size: Size) -> None:
        self.period, self.torus, self.size = (1,) * len(size), size, size
        self.device = matrix.device
        self._matrix = matrix
        values, self._columns = torch.linalg.eigh((matrix + matrix.T) / 2)
        self.eigenvalues = values.clamp(min=0)  # a DenseKernel is positive up to rounding
        self.negativity = 0.0

    def function(self, function: Spectral) -> Spectral:
        """Prepare products with a function of the matrix, given on its eigenvalues."""
        matrix = (self._columns * function(self.eigenvalues)) @ self._columns.T

        def multiply(x: Tensor) -> Tensor:
            product: Tensor = x.reshape(-1, len(matrix)) @ matrix
            return product.reshape(x.shape)

        return multiply

    def diagonal(self, function: Spectral) -> Float[Tensor, "*size"]:
        """Diagonal of a function of the matrix."""
        values: Tensor = self._columns.square() @ function(self.eigenvalues)
        return values.reshape(self.size)

    def powers(self, x: Float[Tensor, "*torus"]) -> Tensor:
        """Squared coefficients of a field in the eigenvectors."""
        along: Tensor = self._columns.T @ x.flatten()
        return along.square()

    def to_dense(self) -> Float[Tensor, "n n"]:
        """Give the matrix."""
        return self._matrix


def covariance_on(
    kernel: LagKernel | StationaryKernel,
    size: Size,
    *,
    periodic: bool,
    definite: bool = False,
    device: torch.device | None = None,
) -> TorusCovariance:
    """Put a kernel on the torus that serves an image."""
    if len(size) not in AXES or any(n < 1 for n in size):
        raise InvalidInputError(
            f"an image must have the size {SIZES}, of at least 1 pixel each, got {tuple(size)}"
        )
    if isinstance(kernel, StationaryKernel):
        _require_fit(kernel, size, periodic)
        table = kernel.covariance_table
        table = table if periodic or definite else _trimmed(table, size)
        return TorusCovariance(table.to(device), size)
    if periodic:
        return TorusCovariance(_table(kernel, size, periodic, device), size)
    first = _smallest(kernel, size)
    found = smallest = TorusCovariance(_table(kernel, first, periodic, device), size)
    factor = 1.5
    while definite and not found.definite and factor <= _LARGEST:
        torus = tuple(_fast(factor * n) for n in first)
        found = TorusCovariance(_table(kernel, torus, periodic, device), size)
        factor *= 1.4
    return found if found.definite else smallest


def lengthscale_derivative_on(
    kernel: LagKernel, covariance: TorusCovariance, *, periodic: bool
) -> TorusCovariance:
    """Differentiate the covariance on a torus by the logarithm of the length-scale."""
    derivative = functools.partial(log_lengthscale_derivative, kernel)
    table = _table(derivative, covariance.torus, periodic, covariance.device)
    return TorusCovariance(table, covariance.size)


def same(values: Tensor) -> Tensor:
    """Return eigenvalues as they are: products with the matrix itself."""
    return values


def _require_fit(kernel: StationaryKernel, size: Size, periodic: bool) -> None:
    torus = kernel.size
    least = size if periodic else tuple(2 * n - 1 for n in size)
    if len(torus) != len(size) or any(n < m for n, m in zip(torus, least, strict=True)):
        raise InvalidInputError(
            f"the kernel is given on a torus of size {_by(torus)}; for this image it must be at "
            f"least {_by(least)}, so that no two pixels see each other around it: derive or "
            "measure it at that size" + ("" if periodic else ", or pass periodic=True")
        )
    if periodic and torus != size:
        raise InvalidInputError(
            f"the kernel's torus, {_by(torus)}, is larger than the image, {_by(size)}: with "
            "periodic=True they must be equal"
        )


def _by(sides: Size) -> str:
    return "x".join(map(str, sides))


# Every lag of the image, and around it those that are below rounding.
def _smallest(kernel: LagKernel, size: Size) -> Size:
    torus = []
    for n in size:
        values = kernel(torch.arange(n, dtype=torch.float64))
        seen = (values.abs() > _REACH * kernel.outputscale).nonzero()
        torus.append(_fast(n + int(seen[-1, 0])))
    return tuple(torus)


# A kernel that is constant beyond some lag needs no more than that lag around the image.
def _trimmed(table: Tensor, size: Size) -> Tensor:
    dims = len(size)
    if math.prod(table.shape[:dims]) > 1:
        return table
    lags = table.reshape(table.shape[dims:])
    far = lags[tuple(n // 2 for n in lags.shape)]
    differs = (lags - far).abs() > _REACH * float(lags.abs().max())
    for axis, n in enumerate(size):
        torus = lags.shape[axis]
        where = differs.movedim(axis, 0).flatten(1).any(dim=1).nonzero()[:, 0]
        reach = int(torch.minimum(where, torus - where).max()) if len(where) else 0
        short = _fast(n + reach)
        if short < torus:
            take = (torch.arange(short, device=table.device) + short // 2) % short - short // 2
            table = table.index_select(dims + axis, take % torus)
    return table


# Multiples of 4 were up to a third faster than odd lengths beside them.
def _fast(length: float | int) -> int:
    return 4 * int(next_fast_len(math.ceil(length / 4)))


def _table(
    function: Spectral, torus: Size, periodic: bool, device: torch.device | None
) -> Float[Tensor, "*table"]:
    lags = [torch.arange(n, dtype=torch.float64) for n in torus]
    lags = [torch.minimum(r, n - r) for r, n in zip(lags, torus, strict=True)]
    values = _copies(function, lags, torus) if periodic else function(_distance(lags))
    return values.to(device)[(None,) * len(torus)]


def _distance(lags: Sequence[Tensor]) -> Tensor:
    squares = torch.meshgrid(*(r.square() for r in lags), indexing="ij")
    return functools.reduce(torch.add, squares).sqrt()


# A torus sees a pixel at all of its copies: their sum is a covariance if the function is one.
def _copies(function: Spectral, lags: Sequence[Tensor], torus: Size) -> Tensor:
    total = function(_distance(lags))
    scale = float(total.abs().max())
    for ring in range(1, _COPIES + 1):
        shifts = itertools.product(range(-ring, ring + 1), repeat=len(torus))
        moved = [
            _distance([r + s * n for r, s, n in zip(lags, shift, torus, strict=True)])
            for shift in shifts
            if max(map(abs, shift)) == ring
        ]
        parts = [function(part).sum(dim=0) for part in torch.stack(moved).split(16)]
        added = torch.stack(parts).sum(dim=0)
        total = total + added
        if float(added.abs().max()) <= _REACH * scale:
            return total
    raise InvalidInputError(
        f"the covariance hasn't fallen off after {_COPIES} turns around the image: take a shorter "
        "length-scale, or periodic=False"
    )
