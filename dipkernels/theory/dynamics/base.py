"""What a linear optimiser is to a prediction: scalar functions of an eigenvalue."""

from abc import ABC, abstractmethod

import numpy as np

from dipkernels.base.checks import as_annotated
from dipkernels.errors import InvalidInputError


class Dynamics(ABC):
    """A linear optimiser, as scalar functions of an eigenvalue.

    Attributes
    ----------
    dimension : str
        Name of the time axis in datasets.
    times : ndarray, shape (t,)
        Where the functions are evaluated.
    """

    dimension: str
    times: np.ndarray

    @property
    @abstractmethod
    def limit(self) -> float:
        """Eigenvalue at which the optimiser ceases to be stable."""

    @abstractmethod
    def decay(self, eigenvalues: np.ndarray) -> np.ndarray:
        """Factor by which the error has shrunk.

        Parameters
        ----------
        eigenvalues : ndarray, shape (m,)
            Not negative.

        Returns
        -------
        ndarray, shape (t, m)
            1 at time 0.
        """

    @abstractmethod
    def accumulated(self, eigenvalues: np.ndarray) -> np.ndarray:
        """``(1 - decay) / eigenvalue``, with its limit at 0.

        Parameters
        ----------
        eigenvalues : ndarray, shape (m,)
            Not negative.

        Returns
        -------
        ndarray, shape (t, m)
            In units of the flow's time.
        """

    def learned(self, eigenvalues: np.ndarray) -> np.ndarray:
        """Share that has been learned, ``1 - decay``, to rounding where it is small.

        Parameters
        ----------
        eigenvalues : ndarray, shape (m,)
            Not negative.

        Returns
        -------
        ndarray, shape (t, m)
            0 at time 0.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # beyond the limit of stability
            return np.asarray(eigenvalues * self.accumulated(eigenvalues))

    @abstractmethod
    def monotone(self, largest: float) -> bool:
        """Say whether the decay's derivatives alternate in sign, as those of ``exp(-t x)`` do.

        Parameters
        ----------
        largest : float
            Eigenvalue up to which it is asked.

        Returns
        -------
        bool
            Whether the bounds of a prediction hold: those of Gauss and Gauss-Radau quadrature, and
            that of the function's action.
        """


def check_times(times: np.ndarray) -> None:
    """Require times that a prediction can be evaluated at."""
    as_annotated("times", times, np.ndarray)
    if not np.issubdtype(times.dtype, np.number) and times.dtype != bool:
        raise InvalidInputError(f"times must be an array of numbers, got one of {times.dtype}")
    if times.ndim != 1 or not len(times) or not (np.isfinite(times) & (times >= 0)).all():
        raise InvalidInputError(
            f"times must be a non-empty array of finite numbers that aren't negative, got {times}"
        )


def check_iterations(step: float, iterations: np.ndarray) -> None:
    """Require a step, and iterations at which a prediction can be evaluated."""
    as_annotated("step", step, float)
    if not 0 < step < np.inf:
        raise InvalidInputError(f"the step must be positive and finite, got {step}")
    check_times(iterations)
    if not np.issubdtype(iterations.dtype, np.integer):
        raise InvalidInputError(f"iterations must be integers, got {iterations.dtype}")


def step_of_fit(learning_rate: float, outputs: int) -> float:
    """Turn the learning rate of a mean squared error into the step of half the squared norm."""
    if outputs < 1:
        raise InvalidInputError(f"a fit has at least 1 output, got {outputs}")
    return 2 * learning_rate / outputs


def iterations_of_fit(iterations: int | np.ndarray) -> np.ndarray:
    """List the iterations of a fit."""
    return iterations if isinstance(iterations, np.ndarray) else np.arange(iterations + 1)
