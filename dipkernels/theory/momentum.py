"""Optimisers that remember gradients: heavy-ball momentum, and Adam in a frozen metric."""

import math
from dataclasses import dataclass

import numpy as np

from dipkernels.base.checks import as_annotated, checked
from dipkernels.errors import InvalidInputError
from dipkernels.theory.dynamics import (
    Dynamics,
    check_iterations,
    iterations_of_fit,
    step_of_fit,
)


@checked
class _Remembering(Dynamics):
    """Those of ``v <- keep v + gain (1 - x a)``, ``a <- a + step v``, with a what accumulates."""

    step: float

    def _memory(self) -> tuple[float, float, float]:
        """Return keep, gain and the v to start from."""
        raise NotImplementedError

    def _first_steps(self) -> np.ndarray:
        """Return steps of the first iterations, where they differ from `step`."""
        return np.empty(0)

    @property
    def limit(self) -> float:
        """Compute ``2 (1 + keep) / (gain step)``."""
        keep, gain, _ = self._memory()
        return 2 * (1 + keep) / (gain * self.step)

    def decay(self, eigenvalues: np.ndarray) -> np.ndarray:
        """Compute it from what has been learned."""
        return 1.0 - self.learned(eigenvalues)

    def accumulated(self, eigenvalues: np.ndarray) -> np.ndarray:
        """Step from one wanted iteration to the next; those in between cost their logarithm."""
        keep, gain, start = self._memory()
        first = self._first_steps()
        wanted, places = np.unique(self.times, return_inverse=True)
        out = np.empty((len(wanted), len(eigenvalues)))
        total, velocity = np.zeros_like(eigenvalues), np.full_like(eigenvalues, start)
        done = 0
        with np.errstate(over="ignore", invalid="ignore"):
            for row, iteration in enumerate(wanted):
                while done < min(iteration, len(first)):
                    velocity = keep * velocity + gain * (1 - eigenvalues * total)
                    total = total + first[done] * velocity
                    done += 1
                if iteration - done == 1:
                    velocity = keep * velocity + gain * (1 - eigenvalues * total)
                    total = total + self.step * velocity
                elif iteration > done:
                    jump = _power(self._map(eigenvalues), int(iteration) - done)
                    state = np.stack([total, velocity, np.ones_like(total)], axis=1)
                    total, velocity, _ = (jump @ state[:, :, None])[:, :, 0].T
                done = int(iteration)
                out[row] = total
        return out[places]

    def _map(self, x: np.ndarray) -> np.ndarray:
        # of (total, velocity, 1) by one iteration
        keep, gain, _ = self._memory()
        step, zero, one = self.step, np.zeros_like(x), np.ones_like(x)
        rows = [
            [1 - step * gain * x, step * keep * one, step * gain * one],
            [-gain * x, keep * one, gain * one],
            [zero, zero, one],
        ]
        return np.moveaxis(np.array(rows), -1, 0)


# By squaring; batches of small matrices.
def _power(matrix: np.ndarray, exponent: int) -> np.ndarray:
    result = np.broadcast_to(np.eye(matrix.shape[-1]), matrix.shape)
    while exponent:
        if exponent & 1:
            result = result @ matrix
        matrix = matrix @ matrix
        exponent >>= 1
    return np.asarray(result)


@checked
@dataclass(frozen=True, eq=False)
class Momentum(_Remembering):
    """Gradient descent with heavy-ball momentum, as torch's SGD steps.

    From ``v = 0``, an iteration is ``v <- momentum v + gradient``, ``f <- f - step kernel v``. It
    is stable for ``step * largest < 2 (1 + momentum)``. An error along a small eigenvalue falls as
    under gradient flow at the time ``iteration * step / (1 - momentum)``; along an eigenvalue above
    ``(1 - sqrt(momentum))^2 / step`` it swings.

    Parameters
    ----------
    step : float
        On ``|f - y|^2 / 2``. For the mean loss of a fit over n outputs it is
        ``2 learning_rate / n``; see `of_fit`.
    momentum : float
        In [0, 1); 0 is plain descent.
    times : ndarray of int, shape (t,)
        Iterations, not negative.

    Raises
    ------
    InvalidInputError
        If the step isn't positive and finite, the momentum is out of range, an iteration is
        negative or not an integer, or there are none.

    Notes
    -----
    Source: Polyak 1964 for the method.
    """

    step: float
    momentum: float
    times: np.ndarray
    dimension = "iteration"

    def __post_init__(self) -> None:
        check_iterations(self.step, self.times)
        _check_memory("momentum", self.momentum)

    @classmethod
    @checked
    def of_fit(
        cls, learning_rate: float, momentum: float, iterations: int | np.ndarray, outputs: int
    ) -> "Momentum":
        """Describe a call of `dipkernels.fit` with ``optimiser="sgd"`` and a momentum.

        Parameters
        ----------
        momentum : float
            Of the fit.
        learning_rate, iterations, outputs
            As of `GradientDescent.of_fit`.

        Returns
        -------
        Momentum
            At iterations 0 to ``iterations``, or at those given.
        """
        return cls(step_of_fit(learning_rate, outputs), momentum, iterations_of_fit(iterations))

    def monotone(self, largest: float) -> bool:
        """Say whether ``step * largest <= (1 - sqrt(momentum))^2``: up to there nothing swings.

        Returns
        -------
        bool
            With a momentum of 0.9 up to 1/1400 of the limit of stability: of a fit that makes use
            of its momentum no bounds are known.

        Notes
        -----
        The decay after i iterations is a polynomial
        in ``x = step * eigenvalue`` with ``p_{i+1} = (1 + momentum - x) p_i - momentum p_{i-1}``,
        ``p_0 = 1``, ``p_1 = 1 - x``: the characteristic polynomial, up to a factor, of ``L L^T``
        with L bidiagonal, 1 on the diagonal and ``sqrt(momentum)`` beside it. So its zeros are real
        and, L's singular values being at least ``1 - sqrt(momentum)``, at least that squared. Below
        its smallest zero a polynomial of real zeros that is positive there has derivatives of
        alternating signs.
        """
        return bool(self.step * largest <= (1 - math.sqrt(self.momentum)) ** 2 * (1 + 1e-6))

    def _memory(self) -> tuple[float, float, float]:
        return self.momentum, 1.0, 0.0


@checked
@dataclass(frozen=True, eq=False)
class FrozenAdam(_Remembering):
    """Adam with a preconditioner that stands still; its first moments move as in torch.

    To be used with the kernel in Adam's metric, ``NTK(prior, parameters, metric=...)``, the metric
    from `dipkernels.kernels.adam_metric` or `dipkernels.fitting.load_adam_metric`. An iteration is
    ``m <- beta m + (1 - beta) gradient`` and ``f <- f - step kernel m / (1 - beta^i)``.

    The prediction holds for as long as the second moments stay about what they were; beyond the
    peak they fall, Adam overfits faster than this, and the tail of the curve is wrong. Take the
    metric late, near the iteration that matters, rather than at the first step.

    Parameters
    ----------
    step : float
        On ``|f - y|^2 / 2``. For the mean loss of a fit over n outputs it is
        ``2 learning_rate / n``, if the metric is that of the mean loss's gradients; see `of_fit`.
    times : ndarray of int, shape (t,)
        Iterations, not negative.
    beta : float
        Of the first moment, in [0, 1).
    taken : int
        Steps that Adam took before the kernel's parameters, not negative. The correction for the
        start of the moments goes on from there, and the first moment is taken to be what it would
        be had the gradient always been what it is now.

    Raises
    ------
    InvalidInputError
        If the step isn't positive and finite, beta or taken is out of range, an iteration is
        negative or not an integer, or there are none.

    Notes
    -----
    Source: Kingma & Ba 2015 for Adam. No bounds are claimed, as for `Momentum`.
    """

    step: float
    times: np.ndarray
    beta: float = 0.9
    taken: int = 0
    dimension = "iteration"

    def __post_init__(self) -> None:
        check_iterations(self.step, self.times)
        _check_memory("beta", self.beta)
        as_annotated("taken", self.taken, int)
        if self.taken < 0:
            raise InvalidInputError(f"taken must not be negative, got {self.taken}")

    @classmethod
    @checked
    def of_fit(
        cls,
        learning_rate: float,
        iterations: int | np.ndarray,
        outputs: int,
        *,
        beta: float = 0.9,
        taken: int = 0,
    ) -> "FrozenAdam":
        """Describe a call of `dipkernels.fit` with ``optimiser="adam"``, or the rest of one.

        Parameters
        ----------
        learning_rate, iterations, outputs
            As of `GradientDescent.of_fit`.
        beta : float
            Of the first moment.
        taken : int
            Steps before.

        Returns
        -------
        FrozenAdam
            At iterations 0 to ``iterations``, or at those given, from the kernel's parameters on.
        """
        step = step_of_fit(learning_rate, outputs)
        return cls(step, iterations_of_fit(iterations), beta, taken)

    def monotone(self, largest: float) -> bool:
        """Say no: no bounds are claimed."""
        return False

    def _memory(self) -> tuple[float, float, float]:
        return self.beta, 1 - self.beta, 1 - self.beta**self.taken

    def _first_steps(self) -> np.ndarray:
        if self.beta == 0:
            return np.empty(0)
        # until the correction is 1 in double precision, or nothing more is asked for
        last = math.ceil(math.log(1e-17) / math.log(self.beta))
        last = min(last, self.taken + int(self.times.max()))
        count = np.arange(self.taken + 1, max(self.taken, last) + 1)
        return np.asarray(self.step / (1 - self.beta**count))


def _check_memory(name: str, value: float) -> None:
    as_annotated(name, value, float)
    if not 0 <= value < 1:
        raise InvalidInputError(f"{name} must be in [0, 1), got {value}")
