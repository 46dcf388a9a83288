"""Forward operators: what a measurement keeps of an image.

Each maps ``(*batch, *image_shape)`` to ``(*batch, *measurement_shape)``; leading axes are free, so
that all of them can be differentiated and mapped over (`torch.func.vmap`).
"""

import copy
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.origin import digest
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError

__all__ = ["Operator"]

Shape = tuple[int, ...]


@checked
class Operator(ABC):
    """A linear map from images to measurements.

    Parameters
    ----------
    image_shape : tuple of int
        ``(channels, *spatial)``.
    measurement_shape : tuple of int
        Of what is measured.

    Attributes
    ----------
    name : str
        For messages.
    mask : Tensor of bool or None
        Which entries of the image are measured, of shape ``spatial`` or ``(channels, *spatial)``,
        where the operator does nothing else; None for any other operator.
    taken : Tensor of bool, shape ``measurement_shape``, or None
        Which entries of the measurement were measured; None: all, or those of the mask.
    beyond_kernels : str
        Why kernels can't predict fits of what it measures; empty if they can.
    """

    name = "linear operator"
    mask: Bool[Tensor, "..."] | None = None
    taken: Bool[Tensor, "..."] | None = None
    beyond_kernels = ""
    origin = ""  # hash of the user's file that made it
    grid = True  # whether a measurement of the image's axes is a picture: a hint for solvers

    def __init__(self, image_shape: Shape, measurement_shape: Shape) -> None:
        self.image_shape = tuple(image_shape)
        self.measurement_shape = tuple(measurement_shape)

    @property
    def identity(self) -> str:
        """What tells it from others of its name, for records of runs."""
        return f"{self.name} {self.origin}".rstrip()

    def forward(self, image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply the operator.

        Parameters
        ----------
        image : Tensor, shape ``(*batch, channels, *spatial)``
            Any images of `image_shape`.

        Returns
        -------
        Tensor, shape ``(*batch, *measurement_shape)``
            What would be measured of them without noise.
        """
        _require_shape(image, self.image_shape, "an image")
        return self._forward(image)

    def adjoint(self, measurement: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply the adjoint: ``<forward(x), y> = <x, adjoint(y)>``.

        Parameters
        ----------
        measurement : Tensor, shape ``(*batch, *measurement_shape)``
            Any measurements.

        Returns
        -------
        Tensor, shape ``(*batch, channels, *spatial)``
            Of the images' shape.
        """
        _require_shape(measurement, self.measurement_shape, "a measurement")
        return self._adjoint(measurement)

    def to(
        self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Operator":
        """Move the operator.

        Parameters
        ----------
        device : str or torch.device, optional
            Where to.
        dtype : torch.dtype, optional
            Floating-point type of its numbers; masks stay boolean.

        Returns
        -------
        Operator
            A new one; this one is unchanged.
        """
        moved = copy.copy(self)
        moved._move(device, dtype)
        return moved

    def norm(
        self,
        *,
        iterations: int = 30,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> float:
        """Estimate the largest singular value by power iteration.

        Parameters
        ----------
        iterations : int
            Of ``A^T A``, each a call of the operator and of its adjoint.
        device, dtype
            Of the images that it's called with: where the operator is, and in what it computes.

        Returns
        -------
        float
            From below, usually to within some percent; 0 if the operator is.
        """
        x = torch.randn(self.image_shape, generator=generator("operator norm", 0))
        x, found = x.to(device, dtype), 0.0
        for _ in range(iterations):
            length = float(x.norm())
            if not length > 0:
                return 0.0
            measured = self.forward(x / length)
            found = max(found, float(measured.norm()))
            x = self.adjoint(measured)
        return found

    @abstractmethod
    def _forward(self, image: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, measurement: Tensor) -> Tensor: ...

    def _move(self, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
        if self.mask is not None:
            self.mask = self.mask.to(device=device)


@checked
class Identity(Operator):
    """Measures every entry of the image as it is."""

    name = "identity"

    def __init__(self, image_shape: Shape, device: str | torch.device = "cpu") -> None:
        super().__init__(image_shape, image_shape)
        self.mask = torch.ones(self.image_shape[1:], dtype=torch.bool, device=device)

    def _forward(self, image: Tensor) -> Tensor:
        return image

    def _adjoint(self, measurement: Tensor) -> Tensor:
        return measurement


@checked
class JpegIdentity(Identity):
    """The identity, for an image that JPEG has compressed: it has no mask that theory could use.

    JPEG rounds the coefficients of 8x8 blocks, which has no useful derivative. The literature fits
    the decoded file as if it were the image.
    """

    name = "JPEG compression (fitted as the identity)"
    beyond_kernels = "JPEG rounds, which is neither linear nor white noise"

    def __init__(self, image_shape: Shape) -> None:
        super().__init__(image_shape)
        self.mask = None


@checked
class Masking(Operator):
    """Measures some pixels; the others are 0 in the measurement."""

    name = "mask"

    def __init__(self, image_shape: Shape, mask: Bool[Tensor, "..."]) -> None:
        super().__init__(image_shape, image_shape)
        self.mask: Tensor = mask

    def _forward(self, image: Tensor) -> Tensor:
        return image * self.mask

    def _adjoint(self, measurement: Tensor) -> Tensor:
        return measurement * self.mask


@checked
class BlockDiagonal(Operator):
    """Several images one after the other along the channels, each with its own operator."""

    name = "block-diagonal operator"

    def __init__(self, blocks: list[Operator]) -> None:
        super().__init__(
            _stacked([block.image_shape for block in blocks]),
            _stacked([block.measurement_shape for block in blocks]),
        )
        self.blocks = blocks
        self.beyond_kernels = next((b.beyond_kernels for b in blocks if b.beyond_kernels), "")
        self._set_mask()

    def _forward(self, image: Tensor) -> Tensor:
        axis = -len(self.image_shape)
        parts = image.split([block.image_shape[0] for block in self.blocks], dim=axis)
        measured = [b.forward(part) for b, part in zip(self.blocks, parts, strict=True)]
        return torch.cat(measured, dim=-len(self.measurement_shape))

    def _adjoint(self, measurement: Tensor) -> Tensor:
        axis = -len(self.measurement_shape)
        parts = measurement.split([block.measurement_shape[0] for block in self.blocks], dim=axis)
        images = [b.adjoint(part) for b, part in zip(self.blocks, parts, strict=True)]
        return torch.cat(images, dim=-len(self.image_shape))

    def _move(self, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
        self.blocks = [block.to(device=device, dtype=dtype) for block in self.blocks]
        self._set_mask()

    def _set_mask(self) -> None:
        masks = [
            None if block.mask is None else block.mask.expand(block.image_shape)
            for block in self.blocks
        ]
        known = [mask for mask in masks if mask is not None]
        self.mask = torch.cat(known) if len(known) == len(masks) else None
        if any(block.taken is not None for block in self.blocks):
            self.taken = torch.cat([taken_of(block) for block in self.blocks])


@checked
class Scaled(Operator):
    """Another operator, each entry of whose measurement is multiplied by a number."""

    grid = False

    def __init__(self, inner: Operator, factors: Float[Tensor, "..."]) -> None:
        super().__init__(inner.image_shape, inner.measurement_shape)
        self.inner, self.factors = inner, factors
        self.name = f"weighted {inner.name}"
        self.beyond_kernels = inner.beyond_kernels
        self.precision = getattr(inner, "precision", None)
        known = inner.mask is not None or inner.taken is not None
        self.taken = taken_of(inner) if known else None

    @property
    def identity(self) -> str:
        """Name it by its factors."""
        return f"weighted {self.inner.identity} {digest(self.factors)}"

    def _forward(self, image: Tensor) -> Tensor:
        return self.inner.forward(image) * self.factors

    def _adjoint(self, measurement: Tensor) -> Tensor:
        return self.inner.adjoint(measurement * self.factors)

    def _move(self, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
        self.inner = self.inner.to(device=device, dtype=dtype)
        self.factors = self.factors.to(device=device, dtype=dtype)
        self.taken = None if self.taken is None else self.taken.to(device=device)


def taken_of(operator: Operator) -> Tensor:
    """Entries of a measurement that were measured, on the operator's device."""
    if operator.taken is not None:
        return operator.taken
    if operator.mask is None:
        return torch.ones(operator.measurement_shape, dtype=torch.bool)
    return operator.mask.expand(operator.image_shape)


def mask_regions(operator: Operator, device: torch.device) -> dict[str, Tensor]:
    """Regions that follow from an operator: whole and, with missing pixels, hole and known."""
    whole = torch.ones(operator.image_shape, dtype=torch.bool, device=device)
    if operator.mask is None or bool(operator.mask.all()):
        return {"whole": whole}
    known = operator.mask.to(device).expand(operator.image_shape)
    return {"whole": whole, "hole": ~known, "known": known}


def _stacked(shapes: list[Shape]) -> Shape:
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _require_shape(x: Tensor, shape: Shape, what: str) -> None:
    if tuple(x.shape[x.dim() - len(shape) :]) != shape or x.dim() < len(shape):
        raise InvalidInputError(
            f"{what} of shape {tuple(x.shape)} doesn't fit the task; expected "
            f"{shape}, after any batch axes"
        )
