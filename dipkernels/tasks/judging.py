"""What a fit of a measurement is judged by: its misfit, and errors to what isn't fitted."""

from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.laws import SQUARES
from dipkernels.tasks.misfits import Misfit
from dipkernels.tasks.operators import Operator, taken_of
from dipkernels.tasks.scoring import Scored


@checked
class Judged(Scored):
    """What has a measurement, the operator that made it, and a law of its errors."""

    measurement: Float[Tensor, "..."]
    operator: Operator
    noise_sigma: float
    held_out: Bool[Tensor, "..."] | None
    second: Float[Tensor, "..."] | None
    law: Misfit

    @cached_property
    def counted(self) -> Bool[Tensor, "..."]:
        """Shape of the measurement: True where an entry was measured and isn't held out."""
        return self._taken if self.held_out is None else self._taken & ~self.held_out

    @cached_property
    def _taken(self) -> Tensor:
        return taken_of(self.operator).to(self.measurement.device)

    def misfit(self, image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Mean over **all** entries of what the error costs on those that count (Ulyanov et al.).

        Parameters
        ----------
        image : Tensor, shape ``(*batch, channels, *spatial)``
            Any images of the task's shape.

        Returns
        -------
        Tensor, shape ``(*batch)``
            The loss that a fit descends: of squares, unless `law` is another. Entries that are
            missing or held out add nothing to the sum and still count in the number that it is
            divided by.
        """
        return self._mean_cost(self.law, image)

    def squared_error(self, image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Mean over **all** entries of the squared error on those that count, whatever the law.

        Parameters
        ----------
        image : Tensor, shape ``(*batch, channels, *spatial)``
            Any images of the task's shape.

        Returns
        -------
        Tensor, shape ``(*batch)``
            The `misfit`, of a law that is that of squares.
        """
        return self._mean_cost(SQUARES, image)

    def _mean_cost(self, law: Misfit, image: Tensor) -> Tensor:
        cost = law.cost(self.operator.forward(image), self.measurement)
        if law != SQUARES and law.by_entry:
            cost = cost * self.counted
        elif self.held_out is not None:  # squares are 0 where nothing was measured
            cost = cost * ~self.held_out
        return cost.mean(dim=self._measurement_axes)

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
        error = (self.operator.forward(image) - self.measurement) * self.held_out
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
        error = (self.operator.forward(image) - self.second) * self._taken
        return error.square().sum(dim=self._measurement_axes) / self._taken.sum()

    @property
    def _measurement_axes(self) -> tuple[int, ...]:
        return tuple(range(-self.measurement.dim(), 0))


def draw_held_out(counted: Tensor, fraction: float, seed: int) -> Tensor:
    """Draw a fraction of the pixels that count, in all channels."""
    pixels = counted.any(dim=0) if counted.dim() > 1 else counted
    positions = pixels.flatten().nonzero()[:, 0]
    number = round(fraction * len(positions))
    if not 0 < number < len(positions):
        raise InvalidInputError(
            f"a fraction of {fraction} of {len(positions)} measured pixels holds out {number}: "
            "choose one that leaves some on both sides"
        )
    order = torch.randperm(len(positions), generator=generator("held-out", seed))
    drawn = torch.zeros(pixels.numel(), dtype=torch.bool)
    drawn[positions[order[:number]]] = True
    return counted & drawn.reshape(pixels.shape)


def check_second(second: Tensor, measurement: Tensor, taken: Tensor) -> None:
    """Check that it's another measurement of the same kind, where one was taken."""
    if second.shape != measurement.shape:
        raise InvalidInputError(
            f"the second measurement has shape {tuple(second.shape)}, the first "
            f"{tuple(measurement.shape)}: both must be taken in the same way"
        )
    if not bool(second[taken].isfinite().all()):
        raise InvalidInputError("the second measurement isn't finite everywhere: mask or fix it")
    if bool((second == measurement)[taken].all()):
        raise InvalidInputError(
            "the second measurement equals the first: its noise must be its own"
        )
