"""`Task`: what was measured, how, and what to score where."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dipkernels.base import displays
from dipkernels.base.checks import checked
from dipkernels.base.devices import resolve_device
from dipkernels.base.kinds import NotNegative, Positive, Share
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.inputs import require_parts, require_region
from dipkernels.tasks.judging import Judged, check_second, draw_held_out
from dipkernels.tasks.laws import SQUARES
from dipkernels.tasks.misfits import Misfit, Weighted, as_misfit
from dipkernels.tasks.operators import Operator, Scaled, mask_regions


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Task(Judged):
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
    law : Misfit
        What an error costs, of `dipkernels.tasks.misfits`; the squared error, unless
        `with_misfit` or `measure` made it another.
    """

    name: str
    measurement: Float[Tensor, "..."]
    operator: Operator
    noise_sigma: NotNegative
    clean: Float[Tensor, "..."] | None = None
    guide: Float[Tensor, "..."] | None = None
    regions: dict[str, Bool[Tensor, "..."]] = field(default_factory=dict)
    score_region: str = "whole"
    images: int = 1
    held_out: Bool[Tensor, "..."] | None = None
    data_range: Positive = 1.0
    second: Float[Tensor, "..."] | None = None
    law: Misfit = SQUARES

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
        if self.held_out is not None and not self.law.by_entry:
            raise InvalidInputError(
                f"the misfit is {self.law.name}, which sees the whole measurement: entries can't "
                "be held out of it"
            )
        if type(self.measurement) is Tensor and not self.measurement.is_meta:
            self.law.check(self.measurement)

    def __repr__(self) -> str:
        shape, measured = ("x".join(map(str, x)) for x in (self.shape, self.measurement.shape))
        seen = "" if shape == measured else f" from {measured}"
        law = "" if self.law == SQUARES else f"misfit {self.law.name}, "
        return (
            f"Task({self.name}, {shape}{seen}, {self.operator.name}, {law}"
            f"noise sigma {self.noise_sigma:.3g}, scored over {self.score_region})"
        )

    def _repr_html_(self) -> str:
        return displays.of_task(self)

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
    def measured_fraction(self) -> float:
        """Share of the measurement's entries that count: ``misfit`` over it is a true mean."""
        return self.counted.double().mean().item()

    @property
    def beyond_kernels(self) -> str:
        """Why kernels can't predict a fit of this task; empty if they can."""
        return self.operator.beyond_kernels or self.law.beyond_kernels

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

    def with_misfit(
        self, misfit: str | Misfit | Weighted | Callable[[Tensor, Tensor], Any]
    ) -> "Task":
        """Let errors of the measurement cost something else than their squares.

        Parameters
        ----------
        misfit : {"squares", "l1"}, object of `dipkernels.tasks.misfits`, or callable
            ``"l1"`` is `Laplace`; ``Poisson(peak)``; ``Weighted(weights)``; or a function of a
            prediction and the measurement, tensors of its shape that hold 0 where nothing was
            measured. It returns the negative log-likelihood up to a constant: one number, as a
            tensor that torch can differentiate. A fit calls it image by image, and descends it over
            the number of entries.

        Returns
        -------
        Task
            A copy, with the measurement as it is. Fits and samplers take it; kernels and Gaussian
            processes only with squares, weighted or not. Weighted, the measurement is multiplied
            by the weights' roots.

        Raises
        ------
        InvalidInputError
            If it's none of these, the noise level has no meaning in it, or weights don't fit.
        ImageError
            If its law can't make the measurement, as Poisson's none that is negative.

        Examples
        --------
        >>> import torch
        >>> from dipkernels import tasks
        >>> task = tasks.denoise(torch.zeros(1, 2, 2), noise_sigma=0.5).with_misfit("l1")
        >>> bool(task.misfit(torch.zeros(1, 2, 2)) == task.measurement.abs().mean())
        True
        """
        if isinstance(misfit, Weighted):
            return self._weighted(misfit)
        law = as_misfit(misfit)
        if self.noise_sigma and not law.takes_sigma and law.by_entry:
            raise InvalidInputError(
                f"the misfit is {law.name}, whose noise has no level of its own, but this "
                f"'{self.name}' task has noise_sigma {self.noise_sigma:g}: make it with 0, or "
                "simulate by the law, measure(..., misfit=)"
            )
        # laws are written in units in which white is 1
        return dataclasses.replace(self, law=law.in_units(self.data_range))

    def _weighted(self, misfit: Weighted) -> "Task":
        if self.law != SQUARES or self.second is not None:
            raise InvalidInputError(
                "weights are for the squared error and a task that wasn't measured twice"
            )
        roots = misfit.roots.to(self.measurement)
        if roots.shape != self.measurement.shape:
            raise InvalidInputError(
                f"weights have the measurement's shape {tuple(self.measurement.shape)}, got "
                f"{tuple(roots.shape)}"
            )
        operator = Scaled(self.operator, roots)
        return dataclasses.replace(self, operator=operator, measurement=roots * self.measurement)

    def hold_out(self, fraction: Share, seed: int = 0) -> "Task":
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
            If the fraction rounds to no pixel or to all, or this task already holds some out.
        """
        if self.held_out is not None:
            raise InvalidInputError("this task already holds out pixels; hold out all at once")
        held_out = draw_held_out(self.counted.cpu(), fraction, seed)
        return dataclasses.replace(self, held_out=held_out.to(self.measurement.device))

    def measured_twice(
        self, second: Float[Tensor, "..."] | None = None, *, seed: int = 0
    ) -> "Task":
        """Give the task another measurement of the same image, to watch a fit by.

        Parameters
        ----------
        second : Tensor, shape of the measurement, optional
            Measured by the same operator, with noise that is independent of the measurement's; what
            it is where nothing was measured doesn't count. By default it's simulated from the clean
            image, with noise of the task's level by its law, not clipped.
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
            noisy = self.noise_sigma > 0 or (self.law.by_entry and not self.law.takes_sigma)
            if self.clean is None or not noisy:
                what = "clean image" if self.clean is None else "noise"
                raise InvalidInputError(
                    f"a second measurement can't be simulated: this '{self.name}' task has no "
                    f"{what}; give the one that was taken"
                )
            random = generator("second measurement", seed)
            second = self.law.draw(self.forward(self.clean), self.noise_sigma, random)
        second = second.to(self.measurement)
        check_second(second, self.measurement, self._taken)
        return dataclasses.replace(self, second=torch.where(self._taken, second, 0))

    def in_range(self, data_range: Positive) -> "Task":
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
        """
        factor = data_range / self.data_range
        return dataclasses.replace(
            self,
            measurement=factor * self.measurement,
            clean=None if self.clean is None else factor * self.clean,
            noise_sigma=factor * self.noise_sigma,
            data_range=data_range,
            second=None if self.second is None else factor * self.second,
            law=self.law.in_units(factor),
        )

    def to(
        self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Task":
        """Move the task.

        Parameters
        ----------
        device, dtype
            As of `Operator.to`.

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

    def _operator_mask(self) -> Tensor:
        if self.operator.mask is None:
            raise InvalidInputError(
                f"this '{self.name}' task has no mask: its operator is {self.operator.name}; "
                "task.counted says which numbers of the measurement count"
            )
        return self.operator.mask
