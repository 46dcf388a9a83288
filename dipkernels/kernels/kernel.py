"""Symmetric kernels over images: what can be asked of any of them."""

from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.kernels.pixels import KernelBlock, Pixels, pixel_indices
from dipkernels.linalg.composites import PRODUCTS, SUMS, SymmetricProduct, SymmetricSum
from dipkernels.linalg.density import effective_rank, spectral_density
from dipkernels.linalg.eigenpairs import Eigenpairs, top_eigenpairs
from dipkernels.linalg.linear import LinearOperator, summed
from dipkernels.linalg.operator import SymmetricOperator
from dipkernels.linalg.probing import krylov_probes


@checked
class Kernel(SymmetricOperator):
    """A symmetric operator over flattened images ``(channels, *spatial)``.

    Those that are measured are positive semi-definite; a difference of two may not be, and is then
    refused by what needs it. Sums with kernels are kernels, as ``A @ B @ A`` is.

    The methods that make more than one product are thin: `dipkernels.linalg.top_eigenpairs`,
    `dipkernels.linalg.krylov_probes` and the functions of `dipkernels.spectra` take any operator.

    Attributes
    ----------
    image_shape : tuple of int
        ``(channels, *spatial)``, of size n.
    """

    image_shape: tuple[int, ...]

    def top_eigenpairs(self, k: int, **options: Any) -> Eigenpairs:
        """Compute the leading eigenpairs; see `dipkernels.linalg.top_eigenpairs`.

        Parameters
        ----------
        k : int
            How many.
        **options
            As there: tolerance, max_matvecs, starts, basis, seed, checkpoint, progress.

        Returns
        -------
        Eigenpairs
            With the residual of each, and the number of products.
        """
        return top_eigenpairs(self, k, **options)

    def spectral_density(self, probes: int = 8, steps: int = 48, **options: Any) -> xr.Dataset:
        """Estimate the spectral density; see `dipkernels.linalg.spectral_density`.

        Parameters
        ----------
        probes, steps, **options
            As of `dipkernels.linalg.krylov_probes`: seed, checkpoint, progress.

        Returns
        -------
        xarray.Dataset
            With standard errors, and the number of products, at most ``probes * steps``.
        """
        return spectral_density(krylov_probes(self, probes, steps, **options))

    def effective_rank(self, probes: int = 8, steps: int = 48, **options: Any) -> xr.Dataset:
        """Estimate effective ranks; see `dipkernels.linalg.effective_rank`.

        Parameters
        ----------
        probes, steps, **options
            As of `spectral_density`; with the same ones its checkpoint serves again, at no product.

        Returns
        -------
        xarray.Dataset
            With standard errors, and the number of products, at most ``probes * steps``.
        """
        return effective_rank(krylov_probes(self, probes, steps, **options))

    def __getitem__(
        self, pixels: Pixels | tuple[Pixels, Pixels]
    ) -> "RestrictedKernel | KernelBlock":
        """Restrict the kernel to the square part of some pixels, or a block of rows and columns.

        A product with either costs one with the whole; see `pixel_indices` for what chooses pixels.
        """  # noqa: DOC201
        if isinstance(pixels, tuple):
            rows, columns = (pixel_indices(each, self.image_shape) for each in pixels)
            return KernelBlock(self, rows, columns)
        return RestrictedKernel(self, pixel_indices(pixels, self.image_shape))

    def rows(self, pixels: Pixels) -> KernelBlock:
        """Rows of some pixels, ``kernel[pixels, :]``.

        Parameters
        ----------
        pixels : mask or indices
            See `pixel_indices`.

        Returns
        -------
        KernelBlock
            Of shape ``(len(pixels), n)``. Its dense form costs a product for each pixel: how these
            pixels move together with all others.
        """
        chosen = pixel_indices(pixels, self.image_shape)
        return KernelBlock(self, chosen, torch.arange(self.shape[0]))

    def to_dense(self, pixels: Pixels | None = None) -> Float[Tensor, "m m"]:
        """Form the matrix, or the part of it of some pixels.

        Parameters
        ----------
        pixels : mask or indices, optional
            See `pixel_indices`.

        Returns
        -------
        Tensor, shape (m, m)
            Costs a product for each of the m pixels; symmetric up to rounding.
        """
        if pixels is None:
            return super().to_dense()
        indices = pixel_indices(pixels, self.image_shape)
        return KernelBlock(self, indices, indices).to_dense()


@checked
class RestrictedKernel(Kernel):
    """The part of a kernel of some pixels: an operator over these alone."""

    def __init__(self, kernel: Kernel, indices: Tensor) -> None:
        self._whole = kernel
        self._block = KernelBlock(kernel, indices, indices)
        self.indices = self._block.rows
        self.image_shape = (len(indices),)
        self.shape, self.dtype, self.device = self._block.shape, kernel.dtype, kernel.device

    def _forms(self, block: Tensor) -> Tensor:
        return self._whole._forms(self._block.embed(block))

    def to_dense(self, pixels: Pixels | None = None) -> Float[Tensor, "m m"]:
        """Form the matrix, or a part of it, at the price that it has with the whole kernel."""
        indices = self.indices
        if pixels is not None:
            indices = indices[pixel_indices(pixels, self.image_shape).to(indices.device)]
        return self._whole.to_dense(indices)

    def _matmat(self, block: Tensor) -> Tensor:
        return self._block._matmat(block)

    def __repr__(self) -> str:
        return f"RestrictedKernel({self.shape[0]} pixels of {self._whole!r})"


@checked
class KernelSum(SymmetricSum, Kernel):
    """A weighted sum of symmetric operators, of which some are kernels over images of one shape."""

    def __init__(self, *terms: tuple[float, SymmetricOperator]) -> None:
        super().__init__(*terms)
        self.image_shape = next(each.image_shape for _, each in terms if isinstance(each, Kernel))

    @classmethod
    def suits(cls, operators: list[LinearOperator]) -> bool:
        """Tell whether a sum of these is one of this kind."""
        shapes = {each.image_shape for each in operators if isinstance(each, Kernel)}
        return super().suits(operators) and len(shapes) == 1

    def to_dense(self, pixels: Pixels | None = None) -> Float[Tensor, "m m"]:
        """Sum the matrices, or the parts of some pixels, each at its own price."""
        if pixels is None:
            return super().to_dense()
        indices = pixel_indices(pixels, self.image_shape)
        return summed(c * _part(each, indices) for c, each in self.terms)


@checked
class KernelProduct(SymmetricProduct, Kernel):
    """A symmetric product whose outer factor is a kernel."""

    def __init__(self, kernel: Kernel, *factors: LinearOperator) -> None:
        super().__init__(kernel, *factors)
        self.image_shape = kernel.image_shape

    @classmethod
    def suits(cls, factors: list[LinearOperator]) -> bool:
        """Tell whether a product of these is one of this kind."""
        return isinstance(factors[0], Kernel) and super().suits(factors)


def _part(operator: SymmetricOperator, indices: Tensor) -> Tensor:
    if isinstance(operator, Kernel):
        return operator.to_dense(indices)
    return KernelBlock(operator, indices, indices).to_dense()


SUMS.insert(0, KernelSum)
PRODUCTS.insert(0, KernelProduct)
