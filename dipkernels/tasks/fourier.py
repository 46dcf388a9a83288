"""Undersampled Fourier data, as of magnetic resonance."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.origin import digest
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.operators import Operator


class Fourier(Operator):
    """Some of the Fourier coefficients of each channel, perhaps as several coils see them.

    Parameters
    ----------
    image_shape : ``(channels, *spatial)``
        Of the image.
    mask : Tensor of bool, shape ``spatial``
        True where a frequency is measured; frequency 0 is in the middle, at ``side // 2``.
    coils : Tensor, shape ``(coils, *spatial)``, optional
        Sensitivity of each coil, real or complex.
    complex_image : bool
        Take channels in pairs for the real and the imaginary parts of complex ones.

    Raises
    ------
    InvalidInputError
        If shapes don't fit, or nothing is measured.

    Notes
    -----
    The transform is orthonormal. Measurements are real, of shape ``(2, channels, frequencies)`` or
    ``(2, channels, coils, frequencies)``: first all real parts, then all imaginary ones, of the
    measured frequencies in the order of ``mask.nonzero()``. Complex data ``z`` of shape
    ``(channels, ..., frequencies)`` are ``torch.stack([z.real, z.imag])``. Noise of deviation s on
    it is s on either part. Costs an FFT for each channel and coil.

    Examples
    --------
    >>> operator = Fourier((1, 8, 8), line_mask((8, 8), known=0.5))
    >>> operator.measurement_shape
    (2, 1, 32)
    """

    grid = False

    @checked
    def __init__(
        self,
        image_shape: Sequence[int],
        mask: Tensor,
        coils: Tensor | None = None,
        *,
        complex_image: bool = False,
    ) -> None:
        shape = tuple(image_shape)
        if mask.dtype != torch.bool or tuple(mask.shape) != shape[1:] or not bool(mask.any()):
            raise InvalidInputError(
                f"the mask of frequencies must be a boolean tensor of shape {shape[1:]} that is "
                f"True somewhere, got {mask.dtype} of shape {tuple(mask.shape)}"
            )
        if complex_image and shape[0] % 2:
            raise InvalidInputError(
                "channels of complex images come in pairs, real and imaginary parts: got "
                f"{shape[0]}"
            )
        if coils is not None and tuple(coils.shape[1:]) != shape[1:]:
            raise InvalidInputError(
                f"the coils must have shape (coils, *{shape[1:]}), got {tuple(coils.shape)}"
            )
        channels = shape[0] // 2 if complex_image else shape[0]
        lines = () if coils is None else (len(coils),)
        super().__init__(shape, (2, channels, *lines, int(mask.sum())))
        self.frequencies, self.complex_image = mask, complex_image
        self._coils = self._exact = None if coils is None else coils.detach().to(torch.complex128)
        self._axes = tuple(range(-len(shape) + 1, 0))
        # in the order of the FFT
        size = torch.tensor(shape[1:])
        where = (mask.nonzero().cpu() - size // 2) % size
        flat = torch.zeros(len(where), dtype=torch.long)
        for axis, side in enumerate(shape[1:]):
            flat = flat * side + where[:, axis]
        self._index = flat.to(mask.device)
        share = mask.double().mean().item()
        seen = "" if coils is None else f", {len(coils)} coils"
        self.name = f"Fourier coefficients ({share:.0%} of them{seen})"

    @property
    def identity(self) -> str:
        """Name it by its frequencies and coils."""
        coils = [] if self._exact is None else [torch.view_as_real(self._exact)]
        return f"{self.name} {self.complex_image} {digest(self.frequencies, *coils)}"

    def _forward(self, image: Tensor) -> Tensor:
        pairs = 2 if self.complex_image else 1
        fields = image.unflatten(-len(self.image_shape), (-1, pairs))
        real = fields.select(-len(self.image_shape), 0)
        imaginary = fields.select(-len(self.image_shape), pairs - 1)
        imaginary = imaginary if self.complex_image else torch.zeros_like(real)
        x = torch.complex(real, imaginary)
        if self._coils is not None:
            x = x.unsqueeze(-len(self.image_shape)) * self._coils.to(x.dtype)
        modes = torch.fft.fftn(x, dim=self._axes, norm="ortho")
        kept = modes.flatten(-len(self._axes)).index_select(-1, self._index)
        return torch.stack([kept.real, kept.imag], dim=-len(self.measurement_shape))

    def _adjoint(self, measurement: Tensor) -> Tensor:
        axis = -len(self.measurement_shape)
        kept = torch.complex(*measurement.unbind(axis))
        size = self.image_shape[1:]
        modes = kept.new_zeros(*kept.shape[:-1], torch.Size(size).numel())
        modes = modes.index_copy(-1, self._index, kept).unflatten(-1, size)
        x: Tensor = torch.fft.ifftn(modes, dim=self._axes, norm="ortho")
        if self._coils is not None:
            x = (x * self._coils.to(x.dtype).conj()).sum(dim=-len(self.image_shape))
        if not self.complex_image:
            return x.real
        parts = torch.stack([x.real, x.imag], dim=-len(self._axes) - 1)
        return parts.flatten(-len(self._axes) - 2, -len(self._axes) - 1)

    def _move(self, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
        self.frequencies, self._index = self.frequencies.to(device), self._index.to(device)
        if self._exact is not None:
            self._exact = self._exact.to(device=device)
            wanted = self._coils.dtype if dtype is None else dtype.to_complex()  # type: ignore[union-attr]
            self._coils = self._exact.to(dtype=wanted)


@checked
def line_mask(
    size: Sequence[int], *, known: float = 0.25, centre: float = 0.08, seed: int = 0
) -> Bool[Tensor, "*spatial"]:
    """Draw which lines of Fourier space are measured: those in the middle, and others at random.

    Parameters
    ----------
    size : (height, width) or (length,)
        Of the image; a line is a row, whose first coordinate is one frequency.
    known : float
        Share of the lines, in (0, 1].
    centre : float
        Share of the lines that are measured in the middle, at most `known`.
    seed : int
        Of the draw.

    Returns
    -------
    Tensor of bool, shape ``size``
        For `Fourier`, with frequency 0 in the middle.

    Raises
    ------
    InvalidInputError
        If a share is out of range.
    """
    lines = size[0]
    if not 0 < known <= 1 or not 0 <= centre <= known:
        raise InvalidInputError(
            "of all lines a share in (0, 1] is measured, and no more in the middle, got "
            f"known={known} and centre={centre}"
        )
    count = max(1, round(known * lines))
    middle = min(count, max(1, round(centre * lines)))
    order = torch.randperm(lines, generator=generator("lines", seed))
    first = lines // 2 - middle // 2
    chosen = torch.zeros(lines, dtype=torch.bool)
    chosen[first : first + middle] = True
    others = order[~chosen[order]][: count - middle]
    chosen[others] = True
    return chosen.reshape(lines, *[1] * (len(size) - 1)).expand(tuple(size)).clone()
