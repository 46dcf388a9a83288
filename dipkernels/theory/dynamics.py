"""How an error along an eigenvector shrinks: gradient flow and descent, and what optimisers are."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from dipkernels.base.checks import as_annotated, checked
from dipkernels.errors import InvalidInputError


@checked
class Dynamics(ABC):
    """What a linear optimiser is to a prediction: scalar functions of an eigenvalue.

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
            1 at time 0; negative where the error swings through 0.
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


@checked
@dataclass(frozen=True, eq=False)
class GradientFlow(Dynamics):
    """Gradient flow on ``|f - y|^2 / 2``: the error decays as ``exp(-t x)``.

    Parameters
    ----------
    times : ndarray, shape (t,)
        Not negative, in units of one over an eigenvalue. For the mean loss of a fit over n
        outputs, iteration i of a small step is time ``2 i learning_rate / n``.

    Raises
    ------
    InvalidInputError
        If a time is negative or not finite, or there are none.
    """

    times: np.ndarray
    dimension = "time"
    limit = float("inf")

    def __post_init__(self) -> None:
        check_times(self.times)

    def decay(self, eigenvalues: np.ndarray) -> np.ndarray:
        """Compute ``exp(-t x)``."""
        return np.asarray(np.exp(-np.outer(self.times, eigenvalues)))

    def accumulated(self, eigenvalues: np.ndarray) -> np.ndarray:
        """``(1 - exp(-t x)) / x``, and t where x is 0."""
        product = np.outer(self.times, eigenvalues)
        safe = np.where(product > 0, product, 1.0)
        mean_decay = np.where(product > 0, -np.expm1(-safe) / safe, 1.0)
        return np.asarray(self.times[:, None] * mean_decay)

    def learned(self, eigenvalues: np.ndarray) -> np.ndarray:
        """``1 - exp(-t x)``, without the division."""
        return np.asarray(-np.expm1(-np.outer(self.times, eigenvalues)))

    def monotone(self, largest: float) -> bool:
        """Say yes."""
        return True


@checked
@dataclass(frozen=True, eq=False)
class GradientDescent(Dynamics):
    """Plain gradient descent with a constant step: the error decays as ``(1 - step x)^i``.

    Parameters
    ----------
    step : float
        On ``|f - y|^2 / 2``. For the mean loss of a fit over n outputs it is
        ``2 learning_rate / n``; see `of_fit`.
    times : ndarray of int, shape (t,)
        Iterations, not negative.

    Raises
    ------
    InvalidInputError
        If the step isn't positive and finite, an iteration is negative or not an integer, or
        there are none.
    """

    step: float
    times: np.ndarray
    dimension = "iteration"

    def __post_init__(self) -> None:
        check_iterations(self.step, self.times)

    @classmethod
    @checked
    def of_fit(
        cls, learning_rate: float, iterations: int | np.ndarray, outputs: int
    ) -> "GradientDescent":
        """Describe a call of `dipkernels.fit` with ``optimiser="gradient-descent"``.

        Parameters
        ----------
        learning_rate : float
            Of the fit, on the mean squared error.
        iterations : int or ndarray of int
            Steps; or the iterations that are wanted, few of a long fit.
        outputs : int
            Channels times pixels, all of them even with a mask.

        Returns
        -------
        GradientDescent
            At iterations 0 to ``iterations``, or at those given.
        """
        return cls(step_of_fit(learning_rate, outputs), iterations_of_fit(iterations))

    @property
    def limit(self) -> float:
        """Compute ``2 / step``."""
        return 2 / self.step

    def decay(self, eigenvalues: np.ndarray) -> np.ndarray:
        """``(1 - step x)^i``."""
        base = 1.0 - self.step * eigenvalues
        with np.errstate(over="ignore"):  # far beyond the limit of stability it is infinite
            return np.asarray(base ** self.times[:, None].astype(float))

    def accumulated(self, eigenvalues: np.ndarray) -> np.ndarray:
        """``(1 - (1 - step x)^i) / x``, and ``i step`` where x is 0."""
        product = self.step * eigenvalues
        # 1 - (1 - product)^i cancels where the product is small; expm1 and log1p don't
        small = product < 0.5
        logarithm = np.log1p(-np.where(small, product, 0.0))
        learned = np.where(
            small, -np.expm1(self.times[:, None] * logarithm), 1.0 - self.decay(eigenvalues)
        )
        quotient = learned / np.where(product > 0, product, 1.0)
        return np.asarray(self.step * np.where(product > 0, quotient, self.times[:, None]))

    def monotone(self, largest: float) -> bool:
        """Say whether ``step * largest <= 1``, half of the limit of stability."""
        # A millionth more is let pass, which is what the step at that limit is known to.
        return bool(self.step * largest <= 1 + 1e-6)
