"""`Task`: what was measured, how, and what to score where."""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.devices import resolve_device
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.inputs import require_parts, require_region
from dipkernels.tasks.operators import Operator, mask_regions
from dipkernels.tasks.scoring import Scored
from dipkernels.tasks.splits import check_second, draw_held_out, draw_second


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Task(Scored):
    """One measurement ``measurement = operator(clean) + noise`` and how to score a fit of it.

    Made by the functions of this package, such as `denoise`. ``spatial`` is ``(length,)``,
    ``(height, width)`` or ``(depth, height, width)``. All methods take images with any leading
    batch axes, are differentiable and can be mapped over by `torch.func.vmap`.

    Attributes
    ----------
    name : str
        What is to be done: ``"denoise"``, ``"inpaint"``, ...
    measurement : Tensor
        What is fitted; its shape may differ from the image's. 0 where nothing was measured.
    operator : Operator
        From image to measurement.
    noise_sigma : float
        Standard deviation of the noise of the measurement, in units of the image's range.
    clean : Tensor, shape ``(channels, *spatial)``, or None
        The image that is sought, in [0, 1]; None where nobody knows it.
    guide : Tensor, shape ``(channels, *spatial)``, or None
        An image that the network is to take as its code (the flash photograph).
    regions : dict of str to Tensor of bool, shape ``(channels, *spatial)``
        Where a fit is scored: ``"whole"`` always; with missing pixels also ``"hole"`` and
        ``"known"``.
    score_region : str
        The region by which a fit is judged.
    images : int
        How many images are stacked along the channels (see `several`).
    held_out : Tensor of bool, shape of the measurement, or None
        Entries that were measured but don't count in `misfit` (see `hold_out`).
    data_range : float
        White, in units of the images: 1, unless `in_range` made it another.
    second : Tensor, shape of the measurement, or None
        Another measurement of the image, with noise of its own (see `measured_twice`).
    """

    name: str
    measurement: Float[Tensor, "..."]
    operator: Operator
    noise_sigma: float
    clean: Float[Tensor, "..."] | None = None
    guide: Float[Tensor, "..."] | None = None
    regions: dict[str, Bool[Tensor, "..."]] = field(default_factory=dict)
    score_region: str = "whole"
    images: int = 1
    held_out: Bool[Tensor, "..."] | None = None
    data_range: float = 1.0
    second: Float[Tensor, "..."] | None = None

    def __post_init__(self) -> None:
        require_parts(self)
        for name in ("measurement", "clean", "guide", "second"):  # a fit descends the network alone
            tensor = getattr(self, name)
            object.__setattr__(self, name, None if tensor is None else tensor.detach())
        if not self.regions:
            masks = mask_regions(self.operator, self.measurement.device)
            object.__setattr__(self, "regions", masks)
            if self.score_region == "whole" and "hole" in masks:
                object.__setattr__(self, "score_region", "hole")
        require_region(self.score_region, self.regions)

    def __repr__(self) -> str:
        shape, measured = ("x".join(map(str, x)) for x in (self.shape, self.measurement.shape))
        seen = "" if shape == measured else f" from {measured}"
        return (
            f"Task({self.name}, {shape}{seen}, {self.operator.name}, "
            f"noise sigma {self.noise_sigma:.3g}, scored over {self.score_region})"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image that is sought, ``(channels, *spatial)``."""
        return self.operator.image_shape

    @property
    def mask(self) -> Bool[Tensor, "..."]:
        """Shape ``spatial``: True where a pixel was measured, in all channels.

        Raises
        ------
        InvalidInputError
            If the task measures something else than pixels, or channels differ.
        """
        mask = self._operator_mask()
        if mask.dim() == len(self.shape) - 1:
            return mask
        if bool((mask != mask[:1]).any()):
            raise InvalidInputError(
                f"the channels of this '{self.name}' task have different masks, so that it has "
                "no mask of pixels: use task.measured, of shape (channels, *spatial)"
            )
        return mask[0]

    @property
    def measured(self) -> Bool[Tensor, "..."]:
        """Shape ``(channels, *spatial)``: True where `misfit` sees the image's value, for theory.

        Raises
        ------
        InvalidInputError
            If the task measures something else than the image's own values.
        """
        measured = self._operator_mask().expand(self.shape)
        return measured if self.held_out is None else measured & ~self.held_out

    @cached_property
    def counted(self) -> Bool[Tensor, "..."]:
        """Shape of the measurement: True where an entry was measured and isn't held out."""
        return self._taken if self.held_out is None else self._taken & ~self.held_out

    @cached_property
    def _taken(self) -> Tensor:
        if self.operator.mask is None:
            return torch.ones_like(self.measurement, dtype=torch.bool)
        return self.operator.mask.expand(self.shape)

    @cached_property
    def measured_fraction(self) -> float:
        """Share of the measurement's entries that count: ``misfit`` over it is a true mean."""
        return self.counted.double().mean().item()

    @property
    def beyond_kernels(self) -> str:
        """Why kernels can't predict a fit of this task; empty if they can."""
        return self.operator.beyond_kernels

    @property
    def has_held_out(self) -> bool:
        """True if some measured entries are held out."""
        return self.held_out is not None

    def forward(self, image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply the forward operator: what would have been measured of ``image``, without noise.

        Parameters
        ----------
        image : Tensor, shape ``(*batch, channels, *spatial)``
            Any images of the task's shape.

        Returns
        -------
        Tensor, shape ``(*batch, *measurement.shape)``
            For instance ``image`` where it was measured, and 0 elsewhere.
        """
        return self.operator.forward(image)

    def adjoint(self, measurement: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply the adjoint of the forward operator.

        Parameters
        ----------
        measurement : Tensor, shape ``(*batch, *measurement.shape)``
            Anything of the measurement's shape.

        Returns
        -------
        Tensor, shape ``(*batch, channels, *spatial)``
            With ``<forward(x), y> = <x, adjoint(y)>``.
        """
        return self.operator.adjoint(measurement)

    def misfit(self, image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Mean over **all** entries of the squared error on those that count (Ulyanov et al.).

        Parameters
        ----------
        image : Tensor, shape ``(*batch, channels, *spatial)``
            Any images of the task's shape.

        Returns
        -------
        Tensor, shape ``(*batch)``
            The loss that a fit descends. Entries that are missing or held out add nothing to the
            sum and still count in the number that it is divided by.
        """
        error = self.forward(image) - self.measurement
        if self.held_out is not None:
            error = error * ~self.held_out
        return error.square().mean(dim=self._measurement_axes)

    @checked
    def hold_out(self, fraction: float, seed: int = 0) -> "Task":
        """Set some of the measured pixels aside, to watch a fit by what it hasn't seen.

        Parameters
        ----------
        fraction : float
            Of the pixels of the measurement that count, strictly between 0 and 1. A pixel is held
            out in all channels.
        seed : int
            Of the draw.

        Returns
        -------
        Task
            A copy whose `misfit` leaves them out; see `held_out_mse`.

        Raises
        ------
        InvalidInputError
            If the fraction isn't in (0, 1), rounds to no pixel or to all, or if this task already
            holds some out.
        """
        if self.held_out is not None:
            raise InvalidInputError("this task already holds out pixels; hold out all at once")
        held_out = draw_held_out(self.counted.cpu(), fraction, seed)
        return dataclasses.replace(self, held_out=held_out.to(self.measurement.device))

    @checked
    def measured_twice(
        self, second: Float[Tensor, "..."] | None = None, *, seed: int = 0
    ) -> "Task":
        """Give the task another measurement of the same image, to watch a fit by.

        Parameters
        ----------
        second : Tensor, shape of the measurement, optional
            Measured by the same operator, with noise that is independent of the measurement's; what
            it is where nothing was measured doesn't count. By default it's simulated from the clean
            image, with white Gaussian noise of the task's level, not clipped.
        seed : int
            Of that noise.

        Returns
        -------
        Task
            A copy; the second measurement isn't fitted, see `second_mse`.

        Raises
        ------
        InvalidInputError
            If the shapes differ, the second is the first, or none is given and there is no clean
            image or no noise to simulate one with.
        """
        if second is None:
            if self.clean is None or not self.noise_sigma > 0:
                what = "clean image" if self.clean is None else "noise"
                raise InvalidInputError(
                    f"a second measurement can't be simulated: this '{self.name}' task has no "
                    f"{what}; give the one that was taken"
                )
            second = draw_second(self.forward(self.clean), self.noise_sigma, seed)
        second = second.to(self.measurement)
        check_second(second, self.measurement, self._taken)
        return dataclasses.replace(self, second=torch.where(self._taken, second, 0))

    @checked
    def in_range(self, data_range: float) -> "Task":
        """Put the task into other units, for a network whose output isn't in [0, 1].

        Parameters
        ----------
        data_range : float
            What white is to be, 255 for a network made with ``output="255"``.

        Returns
        -------
        Task
            A copy with measurement, clean image and noise multiplied. Its losses and mean
            squared errors are in the new units; PSNR and SSIM are what they were.

        Raises
        ------
        InvalidInputError
            If it isn't positive and finite.
        """
        if not 0 < data_range < float("inf"):
            raise InvalidInputError(f"data_range must be positive and finite, got {data_range}")
        factor = data_range / self.data_range
        return dataclasses.replace(
            self,
            measurement=factor * self.measurement,
            clean=None if self.clean is None else factor * self.clean,
            noise_sigma=factor * self.noise_sigma,
            data_range=float(data_range),
            second=None if self.second is None else factor * self.second,
        )

    def held_out_mse(self, image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Mean squared error on the measured entries that are held out.

        Parameters
        ----------
        image : Tensor, shape ``(*batch, channels, *spatial)``
            Any images of the task's shape.

        Returns
        -------
        Tensor, shape ``(*batch)``
            Against the noisy measurement: its expectation is the error plus the noise's variance.

        Raises
        ------
        InvalidInputError
            If nothing is held out.
        """
        if self.held_out is None:
            raise InvalidInputError("this task holds out nothing: use task.hold_out(fraction)")
        error = (self.forward(image) - self.measurement) * self.held_out
        return error.square().sum(dim=self._measurement_axes) / self.held_out.sum()

    def second_mse(self, image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Mean squared error to the second measurement, on all that was measured.

        Parameters
        ----------
        image : Tensor, shape ``(*batch, channels, *spatial)``
            Any images of the task's shape.

        Returns
        -------
        Tensor, shape ``(*batch)``
            Its expectation is the error to what the operator makes of the clean image, plus the
            noise's variance.

        Raises
        ------
        InvalidInputError
            If there is no second measurement.
        """
        if self.second is None:
            raise InvalidInputError(
                "this task has one measurement: use task.measured_twice(second)"
            )
        error = (self.forward(image) - self.second) * self._taken
        return error.square().sum(dim=self._measurement_axes) / self._taken.sum()

    def to(
        self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Task":
        """Move the task.

        Parameters
        ----------
        device : str or torch.device, optional
            Where to.
        dtype : torch.dtype, optional
            Floating-point type of the images.

        Returns
        -------
        Task
            A new one; masks stay boolean.

        Raises
        ------
        DeviceError
            If there is no such device.
        """
        device = None if device is None else resolve_device(device)

        def moved(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device=device, dtype=dtype)

        return dataclasses.replace(
            self,
            measurement=self.measurement.to(device=device, dtype=dtype),
            operator=self.operator.to(device=device, dtype=dtype),
            clean=moved(self.clean),
            guide=moved(self.guide),
            second=moved(self.second),
            regions={name: mask.to(device=device) for name, mask in self.regions.items()},
            held_out=None if self.held_out is None else self.held_out.to(device=device),
        )

    @property
    def _measurement_axes(self) -> tuple[int, ...]:
        return tuple(range(-self.measurement.dim(), 0))

    def _operator_mask(self) -> Tensor:
        if self.operator.mask is None:
            raise InvalidInputError(
                f"this '{self.name}' task has no mask: its operator is {self.operator.name}; "
                "task.counted says which numbers of the measurement count"
            )
        return self.operator.mask
