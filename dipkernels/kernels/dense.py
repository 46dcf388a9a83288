"""`DenseKernel`: covariance and tangent kernel of an image as matrices, stationary or not."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.base.checks import checked, require_choice
from dipkernels.base.kinds import Count
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.kernel import Kernel
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.linalg import DenseOperator
from dipkernels.priors.prior import ImagePrior

INDEFINITE = 1e-8  # of the largest eigenvalue: what rounding may leave below zero
LOST = 1e-6  # of the covariance's root, outside of what the tangent kernel reaches
WHICH = ("covariance", "ntk")


@checked
@dataclass(frozen=True, eq=False)
class DenseKernel:
    """Covariance and neural tangent kernel of one channel of an image, over all pairs of pixels.

    What `StationaryKernel` is for kernels of the lag, for any other: of networks with attention, or
    whose padding is seen. The channels of an image are independent and alike.

    Parameters
    ----------
    covariance, ntk : Tensor, shape (n, n), float64
        Second moment about zero at initialisation, and tangent kernel; symmetric, positive
        semi-definite. Pixels are in the order of a flattened image.
    size : (length,) or (height, width)
        Of the image, of n pixels.

    Raises
    ------
    InvalidInputError
        If shapes, types or values don't fit, or a matrix isn't symmetric or positive semi-definite.

    Notes
    -----
    Memory ``16 n**2`` bytes, time ``n**3``: for up to some thousand pixels.

    Examples
    --------
    >>> kernel = DenseKernel.of(StationaryKernel.white((4, 6)))
    >>> kernel.operator("covariance", channels=3).shape
    (72, 72)
    """

    covariance: Float[Tensor, "n n"]
    ntk: Float[Tensor, "n n"]
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        n = torch.Size(self.size).numel()
        for name in WHICH:
            matrix = getattr(self, name)
            if matrix.dtype != torch.float64 or tuple(matrix.shape) != (n, n):
                raise InvalidInputError(
                    f"the {name} over {n} pixels must be float64 of shape {(n, n)}, got "
                    f"{matrix.dtype} of shape {tuple(matrix.shape)}"
                )
            if not matrix.isfinite().all():
                raise InvalidInputError(f"the {name} holds NaN or infinity")
            scale = float(matrix.abs().max())
            if float((matrix - matrix.T).abs().max()) > INDEFINITE * scale:
                raise InvalidInputError(f"the {name} is not symmetric")
            values = torch.linalg.eigvalsh(matrix)
            if float(values[0]) < -INDEFINITE * scale:
                raise InvalidInputError(
                    f"the {name} is not positive semi-definite: its eigenvalues go from "
                    f"{float(values[0]):.2e} to {float(values[-1]):.2e}"
                )

    @classmethod
    def of(cls, kernel: StationaryKernel) -> "DenseKernel":
        """Form the matrices of a kernel of the lag.

        Parameters
        ----------
        kernel : StationaryKernel
            With phases or without; its torus is the image.

        Returns
        -------
        DenseKernel
            Over all its pixels.
        """
        return cls(kernel.to_dense(), kernel.to_dense("ntk"), kernel.size)

    def to_dense(self, which: str = "covariance") -> Float[Tensor, "n n"]:
        """Pick a matrix.

        Parameters
        ----------
        which : {"covariance", "ntk"}
            Which.

        Returns
        -------
        Tensor, shape (n, n)
            Not a copy.
        """
        require_choice("which", which, WHICH)
        return self.covariance if which == "covariance" else self.ntk

    def operator(self, which: str = "ntk", channels: int = 1) -> "DenseImageKernel":
        """Make an operator over flattened images of it.

        Parameters
        ----------
        which : {"covariance", "ntk"}
            Which.
        channels : int
            Of an image, which don't mix.

        Returns
        -------
        DenseImageKernel
            For `dipkernels.spectra`, `dipkernels.linalg` and the methods of `Kernel`.
        """
        return DenseImageKernel(self.to_dense(which), (channels, *self.size))

    def sample(
        self, n: Count, seed: int = 0, which: str = "covariance"
    ) -> Float[Tensor, "n *size"]:
        """Draw from the Gaussian process with this covariance and mean zero.

        Parameters
        ----------
        n, seed : int
            How many images of one channel, and the seed of the draw.
        which : {"covariance", "ntk"}
            Which matrix is taken for the covariance.

        Returns
        -------
        Tensor, shape ``(n, *size)``
            Exactly distributed.
        """
        root = _root(self.to_dense(which))
        white = torch.randn(
            n, len(root), dtype=torch.float64, generator=generator("gaussian process", seed)
        )
        return (white.to(root.device) @ root).reshape(n, *self.size)

    def prior(
        self, channels: Count = 1, *, start: str = "drawn", name: str = "kernel"
    ) -> ImagePrior:
        """Make the linear network that has this tangent kernel at all of its parameters.

        Its image is ``L theta`` for each channel, ``L`` the root of the tangent kernel, so that a
        fit of it by gradient descent is what the kernel predicts of an infinitely wide one. What
        takes an `ImagePrior` takes it: `dipkernels.theory.score`, `NTK` and with it `expand` and
        `linear_fit`, `dipkernels.fit`, `dipkernels.sampling.sample`.

        Parameters
        ----------
        channels : int
            Of its images.
        start : {"drawn", "zero"}
            Images of its initialisations: draws of the Gaussian process with the covariance, or 0,
            their mean.
        name : str
            For tables and figures.

        Returns
        -------
        ImagePrior
            In float64; n parameters a channel.

        Raises
        ------
        InvalidInputError
            If the covariance has images that the tangent kernel can't make (then take
            ``start="zero"``).

        Examples
        --------
        >>> kernel = DenseKernel.of(StationaryKernel.from_lags(torch.eye(6)[0], torch.eye(6)[0]))
        >>> prior = kernel.prior(channels=2)
        >>> prior.image(prior.init(seed=0)).shape
        torch.Size([2, 6])
        """
        require_choice("start", start, ("drawn", "zero"))
        root = _root(self.ntk)
        begin = torch.zeros_like(root)
        if start == "drawn":
            wanted = _root(self.covariance)
            begin = torch.linalg.pinv(root, hermitian=True) @ wanted
            lost = float((root @ begin - wanted).norm() / wanted.norm())
            if lost > LOST:
                raise InvalidInputError(
                    f"{lost:.1%} of the covariance's root is of images that the tangent kernel "
                    "can't make: take start='zero'"
                )
        code = torch.zeros(1, channels, *self.size, dtype=torch.float64, device=root.device)
        # from zero all seeds begin alike, as is meant
        return ImagePrior(
            lambda: _LinearImages(root, begin, channels, self.size), code, name=name, check=False
        )

    def __repr__(self) -> str:
        return f"DenseKernel(size {'x'.join(map(str, self.size))})"


@checked
class DenseImageKernel(Kernel):
    """A matrix ``(n, n)`` over the pixels of one channel, as a kernel over images of several."""

    def __init__(self, matrix: Float[Tensor, "n n"], image_shape: tuple[int, ...]) -> None:
        self._channel = DenseOperator(matrix)
        size = torch.Size(image_shape).numel()
        if image_shape[0] < 1 or size != image_shape[0] * len(matrix):
            raise InvalidInputError(
                f"a matrix over {len(matrix)} pixels is none of images of shape {image_shape}"
            )
        self.image_shape, self.shape = image_shape, (size, size)
        self.dtype, self.device = matrix.dtype, matrix.device

    def _matmat(self, block: Tensor) -> Tensor:
        channels = block.unflatten(0, (self.image_shape[0], -1))
        return torch.cat([self._channel @ part for part in channels])


class _LinearImages(nn.Module):
    """Images ``L theta``, added to a code of zeros."""

    root: Tensor

    def __init__(self, root: Tensor, begin: Tensor, channels: int, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("root", root)
        white = torch.randn(channels, len(root), dtype=torch.float64)
        self.weights = nn.Parameter(white.to(begin.device) @ begin.T)

    def forward(self, code: Tensor) -> Tensor:
        return code + (self.weights @ self.root).reshape(1, -1, *self.size)


# The symmetric root.
def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
