"""The law of a measurement's errors: what each costs. That of squares is a task's own."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError


@checked
class Misfit(ABC):
    """What an error costs; made by name or by one of the classes of this module.

    Attributes
    ----------
    name : str
        For messages and records.
    target : str
        The negative log-likelihood in words, for records of posteriors.
    takes_sigma : bool
        Whether the likelihood has a ``noise_sigma``. It's the standard deviation of an entry's
        error, whatever the law.
    by_entry : bool
        Whether it's a sum over entries, of which some can be left out.
    """

    name: ClassVar[str]
    target: ClassVar[str]
    takes_sigma: ClassVar[bool] = True
    by_entry: ClassVar[bool] = True

    @property
    def beyond_kernels(self) -> str:
        """Why kernels can't predict fits by it; empty if they can."""
        return f"the theory is of least squares, this misfit is {self.name}"

    @abstractmethod
    def cost(
        self, prediction: Float[Tensor, "..."], measurement: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """Say what every entry's error costs, in the units of a fit's loss.

        Parameters
        ----------
        prediction : Tensor, shape ``(*batch, *measurement.shape)``
            What would be measured.
        measurement : Tensor
            What was.

        Returns
        -------
        Tensor, shape of the prediction
            Its sum over a measurement, times `scale`, is the negative log-likelihood.
        """

    @abstractmethod
    def scale(self, noise_sigma: float) -> float:
        """Give what one unit of cost is as a negative log-likelihood.

        Parameters
        ----------
        noise_sigma : float
            Standard deviation of an entry's error.

        Returns
        -------
        float
            1, if the likelihood has no noise_sigma.
        """

    @abstractmethod
    def curvature(
        self, prediction: Float[Tensor, "..."], measurement: Float[Tensor, "..."], sigma: float
    ) -> Float[Tensor, "..."]:
        """Give the curvature of the cost by the prediction, from which stable steps follow.

        Parameters
        ----------
        prediction, measurement : Tensor
            Of one image.
        sigma : float
            Standard deviation of an entry's error; 0 if unknown.

        Returns
        -------
        Tensor
            Broadcastable to the measurement: the second derivative, or, of a law with a kink, the
            Fisher information in units of the cost.
        """

    def deviation(self, exact: Float[Tensor, "..."], noise_sigma: float) -> Float[Tensor, "..."]:
        """Give the standard deviation of every entry's noise.

        Parameters
        ----------
        exact : Tensor
            What would be measured without.
        noise_sigma : float
            Of a law that has it.

        Returns
        -------
        Tensor, shape of ``exact``
            ``noise_sigma``, unless the law has levels of its own.
        """
        return torch.full_like(exact, noise_sigma)

    @abstractmethod
    def draw(
        self, exact: Float[Tensor, "..."], noise_sigma: float, random: torch.Generator
    ) -> Float[Tensor, "..."]:
        """Simulate a measurement by the law whose negative log-likelihood it is.

        Parameters
        ----------
        exact : Tensor
            Without noise.
        noise_sigma : float
            Standard deviation of an entry's error.
        random : torch.Generator
            On the CPU.

        Returns
        -------
        Tensor, shape of ``exact``
            With noise.
        """

    def check(self, measurement: Tensor) -> None:  # noqa: B027
        """Refuse a measurement that the law can't make.

        Parameters
        ----------
        measurement : Tensor
            Of a task.
        """

    def in_units(self, factor: float) -> "Misfit":
        """Give the same misfit of images and measurements that were multiplied by a factor.

        Parameters
        ----------
        factor : float
            White in the new units over that in the old ones.

        Returns
        -------
        Misfit
            This one, if it doesn't know units.
        """
        del factor
        return self


@checked
@dataclass(frozen=True)
class Squares(Misfit):
    """Squared error: Gaussian noise of one level. Every task has it unless another is said."""

    name = "the squared error"
    target = "|y - A f(w)|^2 / (2 noise_sigma^2)"
    beyond_kernels = ""

    def cost(self, prediction: Tensor, measurement: Tensor) -> Tensor:
        """Square the error."""
        return (prediction - measurement).square()

    def scale(self, noise_sigma: float) -> float:
        """Give ``1 / (2 noise_sigma^2)``."""
        return 1 / (2 * noise_sigma**2)

    def curvature(self, prediction: Tensor, measurement: Tensor, sigma: float) -> Tensor:
        """Give 2."""
        return torch.full((), 2.0).to(measurement)

    def draw(self, exact: Tensor, noise_sigma: float, random: torch.Generator) -> Tensor:
        """Add white Gaussian noise."""
        return exact + noise_sigma * torch.randn(exact.shape, generator=random).to(exact)


SQUARES = Squares()


def require_squares(law: Misfit, what: str) -> None:
    """Refuse another law than that of squares."""
    if law != SQUARES:
        raise InvalidInputError(
            f"{what} is of least squares, weighted or not, but this task's misfit is {law.name}. "
            "Fits and chains take it"
        )
