"""What a kernel knows about a task, whichever way it is known."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.tasks import Task
from dipkernels.theory.dynamics import Dynamics

Noise = Literal["expected", "realised"]


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean squared errors to the clean image, each of shape (time, region)."""

    lower: np.ndarray
    middle: np.ndarray
    upper: np.ndarray
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)  # the middle, where it is a sum


@checked
class Expansion(ABC):
    """What a kernel knows about a task, enough to predict every linear optimiser on it.

    By Krylov spaces, from `expand`, or exactly, from `KernelSpectrum.expand`.

    Attributes
    ----------
    noise : {"expected", "realised"}
        Whether predictions are of the mean over noises, or of one measurement.
    regions : mapping of str
        Where errors are averaged, by name.
    score_region : str
        The one of them that counts.
    largest : float
        Largest eigenvalue seen.
    matvecs : int
        Products with the kernel, spent on all of it.
    exact : bool
        Whether the errors are known so well that a peak between two times is worth looking for.
    ceiling : float or None
        What the peak of gradient flow stays below, in dB, if that is extrapolated.
    """

    noise: Noise
    regions: Mapping[str, object]
    score_region: str
    largest: float
    matvecs: int
    exact: bool = False
    ceiling: float | None = None

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of the network's outputs: channels times pixels."""

    @property
    def entries(self) -> int:
        """Numbers of the measurement, over which the loss of a fit is a mean."""
        return self.outputs

    @property
    def times(self) -> np.ndarray:
        """Times at which the flow is evaluated by default, ascending."""
        return default_times(self.largest)

    @abstractmethod
    def errors(self, dynamics: Dynamics) -> Errors:
        """Predict the mean squared error, with bounds.

        Parameters
        ----------
        dynamics : Dynamics
            Of the optimiser, at its times; what diverges gives infinities or NaN.

        Returns
        -------
        Errors
            By time and region; expected noise is told by its parts, ``bias`` and ``variance``.
        """

    @abstractmethod
    def degrees_of_freedom(self, dynamics: Dynamics) -> np.ndarray:
        """Count the directions that are learned, ``tr (I - E)``.

        Parameters
        ----------
        dynamics : Dynamics
            As of `errors`.

        Returns
        -------
        ndarray, shape (t,)
            Of the measured outputs; NaN where there are no probes to tell it.
        """


def default_times(largest: float, points: int = 181) -> np.ndarray:
    """Choose times from before anything is learned to long after, over nine decades."""
    if not largest > 0:
        raise InvalidInputError(
            "the kernel is zero: nothing is ever learned, and there is no time to measure it by"
        )
    return np.geomspace(0.1, 1e8, points) / largest


def check_shape(task: Task, shape: tuple[int, ...]) -> None:
    """Require a task of a prior's or a kernel's images, of the kind that kernels predict."""
    require_linear(task)
    if task.shape != shape:
        raise InvalidInputError(
            f"the task has shape {task.shape}, the prior makes images of shape {shape}"
        )


def require_linear(task: Task) -> None:
    """Require a measurement that kernels predict: linear, with the squared error as its loss."""
    why = task.beyond_kernels
    if why:
        raise InvalidInputError(
            f"kernel predictions don't apply to this '{task.name}' task: {why}. Fits and samplers "
            "take it"
        )


def known_image(task: Task) -> torch.Tensor:
    """Take the clean image, if errors to it can be predicted."""
    if task.clean is None:
        raise InvalidInputError(
            "a prediction is of the error to a clean image; this task has none: take tasks of "
            "other images of that size, whose clean image is known"
        )
    if task.data_range != 1.0:
        raise InvalidInputError(
            f"predictions are for images in [0, 1]; this white is {task.data_range:g} here: use "
            "the task as it was before in_range, and a network without that output range"
        )
    return task.clean


def as_array(x: torch.Tensor) -> np.ndarray:
    """Fetch a tensor as float64 on the host."""
    return np.asarray(x.detach().cpu().double().numpy())
