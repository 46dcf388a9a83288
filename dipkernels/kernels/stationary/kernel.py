"""`StationaryKernel`: a covariance and a tangent kernel on the lags of a torus."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.base.kinds import Count
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary.blocks import (
    block_matrices,
    dense_matrix,
    multiply_blocks,
    phase_means,
)

INDEFINITE = 1e-8  # of the largest eigenvalue: what rounding may leave below zero


@checked
@dataclass(frozen=True)
class StationaryKernel:
    """Covariance and neural tangent kernel of one channel of an infinitely wide network's features.

    The features ``x(n)`` live on a torus. Their kernels are functions of the lag ``r`` alone, or
    (cyclostationary, as upsampling makes them) of the lag and of the phase ``p = n mod period``:
    ``covariance_table[p, r] = E x(p) x(p + r)``, a second moment about zero.

    Attributes
    ----------
    covariance_table : Tensor, shape ``(*period, *size)``, float64
        Units of the features squared. All axes of the period are 1 where it is stationary.
    ntk_table : Tensor, shape ``(*period, *size)``, float64
        Inner products of the derivatives with respect to all parameters; channels don't mix.
    mean : Tensor, shape ``(*period,)``, float64
        ``E x(p)``.
    scale_weight : float
        How many times the covariance is contained in the tangent kernel as the part of the
        channels' own scales, as of a batch normalisation: an activation acts differently on it.

    Raises
    ------
    InvalidInputError
        If the shapes don't belong together or the tables aren't float64.

    Notes
    -----
    Memory: 16 bytes times ``prod(period) * prod(size)``.

    Examples
    --------
    >>> kernel = StationaryKernel.white((8,))
    >>> kernel.covariance
    tensor([1., 0., 0., 0., 0., 0., 0., 0.], dtype=torch.float64)
    """

    covariance_table: Float[Tensor, "*table"]
    ntk_table: Float[Tensor, "*table"]
    mean: Float[Tensor, "*period"]
    scale_weight: float = 0.0

    def __post_init__(self) -> None:
        shape = tuple(self.covariance_table.shape)
        if len(shape) not in (2, 4, 6):
            raise InvalidInputError(
                f"a table has as many axes of phases as of lags, 1 to 3, as (T1, T2, N1, N2); got "
                f"{shape}; StationaryKernel.from_lags takes lags alone"
            )
        for name, table in (("covariance", self.covariance_table), ("ntk", self.ntk_table)):
            if table.dtype != torch.float64 or tuple(table.shape) != shape:
                raise InvalidInputError(
                    f"the {name} table must be float64 of shape {shape}, got {table.dtype} of "
                    f"shape {tuple(table.shape)}"
                )
        if tuple(self.mean.shape) != self.period:
            raise InvalidInputError(
                f"the mean must have one value for each phase, {self.period}, got shape "
                f"{tuple(self.mean.shape)}"
            )
        if any(n % t for n, t in zip(self.size, self.period, strict=True)):
            raise InvalidInputError(f"the period {self.period} must divide the size {self.size}")

    @classmethod
    def from_lags(
        cls,
        covariance: Float[Tensor, "*size"],
        ntk: Float[Tensor, "*size"] | None = None,
        *,
        mean: float = 0.0,
    ) -> "StationaryKernel":
        """Make a stationary kernel from functions of the lag.

        Parameters
        ----------
        covariance : Tensor, shape ``(*size)``
            Second moment at each lag, lag 0 first, as a Fourier transform has it.
        ntk : Tensor, shape ``(*size)``, optional
            Zero by default, as it is for a network's code.
        mean : float
            Of the features.

        Returns
        -------
        StationaryKernel
            Of period 1.
        """
        table = covariance.double()[(None,) * covariance.dim()].contiguous()
        tangent = torch.zeros_like(table) if ntk is None else ntk.double()[(None,) * ntk.dim()]
        return cls(table, tangent, table.new_full((1,) * covariance.dim(), mean))

    @classmethod
    def white(
        cls, size: tuple[int, ...], *, variance: float = 1.0, mean: float = 0.0
    ) -> "StationaryKernel":
        """Make the kernel of values that are drawn independently.

        Parameters
        ----------
        size : (length,), (height, width) or (depth, height, width)
            Of the torus.
        variance, mean : float
            Of each value.

        Returns
        -------
        StationaryKernel
            Of a code: its tangent kernel is zero.
        """
        covariance = torch.full(size, mean**2, dtype=torch.float64)
        covariance.view(-1)[0] += variance
        return cls.from_lags(covariance, mean=mean)

    @property
    def dims(self) -> int:
        """1 for signals, 2 for images, 3 for volumes."""
        return self.covariance_table.dim() // 2

    @property
    def period(self) -> tuple[int, ...]:
        """Number of phases along each axis; all 1 where the kernel is stationary."""
        return tuple(self.covariance_table.shape[: self.dims])

    @property
    def size(self) -> tuple[int, ...]:
        """Of the torus."""
        return tuple(self.covariance_table.shape[self.dims :])

    @property
    def covariance(self) -> Float[Tensor, "*size"]:
        """Second moment at each lag, averaged over the phases; lag 0 first."""
        return self.covariance_table.mean(dim=tuple(range(self.dims)))

    @property
    def ntk(self) -> Float[Tensor, "*size"]:
        """Tangent kernel at each lag, averaged over the phases; lag 0 first."""
        return self.ntk_table.mean(dim=tuple(range(self.dims)))

    @property
    def variances(self) -> Float[Tensor, "*period"]:
        """Second moment of each phase."""
        return self.covariance_table.flatten(self.dims)[..., 0]

    def phase_averaged(self) -> "StationaryKernel":
        """Average over the phases.

        Returns
        -------
        StationaryKernel
            Of period 1: in the Frobenius norm the nearest stationary kernel, and of those the one
            whose Wiener filter is best.
        """
        return with_period(self, (1,) * self.dims)

    def spectrum(self, which: str = "covariance") -> Float[Tensor, "*size"]:
        """Fourier transform of the phase-averaged kernel.

        Parameters
        ----------
        which : {"covariance", "ntk"}
            Of which kernel.

        Returns
        -------
        Tensor, shape ``(*size)``
            At the frequencies of `torch.fft.fftfreq` along each axis. Of a stationary kernel they
            are its eigenvalues, as a matrix over the pixels.
        """
        averaged = self.covariance if self._table(which) is self.covariance_table else self.ntk
        spectrum: Tensor = torch.fft.fftn(averaged).real
        return spectrum

    def to_dense(self, which: str = "covariance") -> Float[Tensor, "n n"]:
        """Form the matrix over all pixels.

        Parameters
        ----------
        which : {"covariance", "ntk"}
            Of which kernel.

        Returns
        -------
        Tensor, shape (n, n)
            With n the number of pixels, in the order of a flattened image. Memory: ``8 n^2`` bytes.
        """
        return dense_matrix(self._table(which), self.size)

    def eigenvalues(self, which: str = "covariance") -> Float[Tensor, " n"]:
        """Compute all eigenvalues of the matrix over the pixels, without forming it.

        Parameters
        ----------
        which : {"covariance", "ntk"}
            Of which kernel.

        Returns
        -------
        Tensor, shape (n,)
            Ascending. Time ``n * prod(period)^2``.
        """
        values = torch.linalg.eigvalsh(block_matrices(self._table(which)))
        ascending: Tensor = values.flatten().sort().values
        return ascending

    def sample(
        self, n: Count, seed: int = 0, which: str = "covariance"
    ) -> Float[Tensor, "n *size"]:
        """Draw from the Gaussian process with this covariance and mean zero.

        Parameters
        ----------
        n, seed : int
            How many images of one channel, and the seed of the draw.
        which : {"covariance", "ntk"}
            Which kernel is taken for the covariance.

        Returns
        -------
        Tensor, shape ``(n, *size)``
            Exactly distributed. Time ``pixels * prod(period)^2`` once, and ``prod(period)`` times
            the pixels for each draw.

        Raises
        ------
        InvalidInputError
            If the kernel isn't positive semi-definite.
        """
        values, vectors = torch.linalg.eigh(block_matrices(self._table(which)))
        top = values.max()
        if values.min() < -INDEFINITE * top:
            raise InvalidInputError(
                f"this kernel is not positive semi-definite: its eigenvalues go from "
                f"{float(values.min()):.2e} to {float(top):.2e}, so that no process has it"
            )
        roots = vectors * values.clamp(min=0).sqrt()[:, None, :]
        # The root of a block isn't that of a real matrix: noise is complex, half of it is kept.
        random = generator("gaussian process", seed)
        white = torch.randn(n, *self.size, dtype=roots.dtype, generator=random) * math.sqrt(2)
        return multiply_blocks(roots, white.to(roots.device), self.period).real

    def _table(self, which: str) -> Tensor:
        require_choice("which", which, ("covariance", "ntk"))
        return self.covariance_table if which == "covariance" else self.ntk_table

    def __repr__(self) -> str:
        size, period = ("x".join(map(str, axes)) for axes in (self.size, self.period))
        return f"StationaryKernel(size {size}, period {period})"


def with_period(kernel: StationaryKernel, period: tuple[int, ...]) -> StationaryKernel:
    """Average over phases that are equal modulo a divisor of the period."""
    if period == kernel.period:
        return kernel
    means = phase_means(kernel.mean, period)
    return mapped(kernel, lambda table: phase_means(table, period), means)


def mapped(
    kernel: StationaryKernel, function: Callable[[Tensor], Tensor], mean: Tensor
) -> StationaryKernel:
    """Apply a function to both tables, and take another mean."""
    covariance, ntk = function(kernel.covariance_table), function(kernel.ntk_table)
    return replace(kernel, covariance_table=covariance, ntk_table=ntk, mean=mean)
