"""Log evidence of a measurement under a Gaussian process, and its derivatives."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.base.statistics import mean_and_error
from dipkernels.errors import InvalidInputError, NotSymmetricError
from dipkernels.gp.observation import Observation
from dipkernels.gp.torus import TorusCovariance, same
from dipkernels.linalg import Estimate, SymmetricOperator, krylov_probes

METHODS = ("auto", "fourier", "dense", "lanczos")
_BLOCK = 256  # columns of a dense matrix that are formed at once


@dataclass(frozen=True, eq=False)
class Evidence:
    """``log p(y)`` of all entries that count; see `GPPosterior.log_evidence`."""

    value: Estimate[float]
    bounds: tuple[float, float]
    gradient: dict[str, Estimate[float]]
    method: str


@checked
class MeasuredCovariance(SymmetricOperator):
    """``A K A^T`` over the entries that count: the covariance of measurements without noise."""

    def __init__(self, observation: Observation) -> None:
        self._observation = observation
        self._index = observation.counted.flatten().nonzero()[:, 0]
        self.shape = (observation.count, observation.count)
        self.dtype, self.device = torch.float64, self._index.device

    def embed(self, block: Tensor) -> Tensor:
        """Put columns ``(n, k)`` into flattened measurements ``(k, numbers)``, 0 elsewhere."""
        rows = block.new_zeros(block.shape[1], math.prod(self._observation.shape))
        rows[:, self._index] = block.T
        return rows

    def restrict(self, rows: Tensor) -> Tensor:
        """Undo `embed`."""
        return rows[:, self._index].T

    def _matmat(self, block: Tensor) -> Tensor:
        return self.restrict(self._observation.product(self.embed(block)))

    def __repr__(self) -> str:
        return f"MeasuredCovariance({self.shape[0]} entries)"


def log_evidence(
    observation: Observation,
    residual: Tensor,
    derivative: TorusCovariance | None,
    *,
    method: str,
    probes: int,
    steps: int,
    seed: int,
) -> Evidence:
    """Compute the evidence; see `dipkernels.gp.GPPosterior.log_evidence`."""
    method = chosen_method(method, observation)
    problem = _Problem(observation, residual, derivative)
    if method == "fourier":
        return problem.fourier()
    if method == "dense":
        return problem.dense()
    return problem.lanczos(probes, steps, seed)


def chosen_method(method: str, observation: Observation) -> str:
    """Find out by which method a determinant is had, and whether it can be."""
    require_choice("method", method, METHODS)
    if method == "auto":
        return "fourier" if observation.exact else "lanczos"
    if method == "fourier":
        observation.require_exact("method")
    return method


class _Problem:
    """The quadratic form, and its part in every derivative, are the same for all methods."""

    def __init__(
        self, observation: Observation, residual: Tensor, derivative: TorusCovariance | None
    ) -> None:
        self.seen, self.residual, self.derivative = observation, residual, derivative
        self.s2, self.n = observation.variance, observation.count

    def fourier(self) -> Evidence:
        k = self.seen.covariance
        noisy = k.eigenvalues + self.s2
        if not bool((noisy > 0).all()):
            raise NotSymmetricError(
                "the covariance of the measurement is not positive definite: its smallest "
                f"eigenvalue is {float(noisy.min()):.2e}; raise noise_sigma"
            )
        channels = len(self.residual)
        traces = {"log_outputscale": channels * float((k.eigenvalues / noisy).sum())}
        if self.derivative is not None:  # only of functions of distance, which have one phase
            slopes = self.derivative.eigenvalues / noisy
            traces["log_lengthscale"] = channels * float(slopes.sum())
        traces["log_noise_variance"] = channels * float((self.s2 / noisy).sum())
        logdet = channels * float(noisy.log().sum())
        return self._exact(self.seen.weights(self.residual[None])[0], logdet, traces, "fourier")

    def dense(self) -> Evidence:
        operator = MeasuredCovariance(self.seen)
        prior = dense_matrix(operator, operator.__matmul__)
        eye = torch.eye(self.n, dtype=torch.float64, device=prior.device)
        lower, failed = torch.linalg.cholesky_ex(prior + self.s2 * eye)
        if int(failed):
            raise NotSymmetricError(
                "the covariance of the measurement is not positive definite: raise noise_sigma"
            )
        inverse = torch.cholesky_inverse(lower)
        traces = {
            "log_outputscale": float((inverse * prior).sum()),
            "log_noise_variance": self.s2 * float(inverse.trace()),
        }
        if self.derivative is not None:
            slope = dense_matrix(operator, lambda block: self._sloped(operator, block))
            traces["log_lengthscale"] = float((inverse * slope).sum())
        alpha = inverse @ operator.restrict(self.residual.reshape(1, -1))
        logdet = 2 * float(lower.diagonal().log().sum())
        whole = operator.embed(alpha).reshape(self.residual.shape)
        return self._exact(whole, logdet, traces, "dense")

    def lanczos(self, probes: int, steps: int, seed: int) -> Evidence:
        operator, s2 = MeasuredCovariance(self.seen), self.s2
        if s2 == 0:
            raise InvalidInputError(
                "without noise the logarithm's quadrature has no bound: pass noise_sigma, or "
                "method='dense'"
            )
        alpha = self.seen.weights(self.residual[None])[0]
        spaces = krylov_probes(operator, probes, steps, seed=seed)
        matvecs = sum(len(space.alpha) for space in spaces)

        def trace(function: Callable[[np.ndarray], np.ndarray]) -> Estimate[float]:
            return _averaged([float(space.gauss()(function)) for space in spaces], matvecs)

        traces = {
            "log_noise_variance": trace(lambda v: s2 / (v + s2)),
            "log_outputscale": trace(lambda v: v / (v + s2)),
        }
        if self.derivative is not None:
            signs = operator.rademacher(probes, seed)
            solved = self.seen.weights(operator.embed(signs).reshape(-1, *self.seen.shape))
            sloped = operator.embed(self._sloped(operator, signs))
            forms = (solved.flatten(1) * sloped).sum(dim=1)
            traces["log_lengthscale"] = _averaged(forms.tolist(), matvecs)

        def logarithm(nodes: np.ndarray) -> np.ndarray:
            return np.log(nodes + s2)

        high = trace(logarithm)
        low = _averaged([float(space.gauss_radau()(logarithm)) for space in spaces], matvecs)
        values = [self._value(alpha, each.value) for each in (high, low)]
        value = Estimate(values[0], high.standard_error / 2, matvecs)
        return Evidence(value, (values[0], values[1]), self._gradient(alpha, traces), "lanczos")

    def _sloped(self, operator: MeasuredCovariance, block: Tensor) -> Tensor:
        rows = operator.embed(block)
        return operator.restrict(self._slope_product(rows.reshape(-1, *self.seen.shape)))

    def _slope_product(self, batch: Tensor) -> Tensor:
        if self.derivative is None:
            raise InvalidInputError("this kernel has no length-scale")
        product = self.derivative.function(same)
        image = self.derivative.crop(product(self.seen.adjoint(batch)))
        return self.seen.forward(image).flatten(1)

    def _exact(
        self, alpha: Tensor, logdet: float, traces: dict[str, float], method: str
    ) -> Evidence:
        value = self._value(alpha, logdet)
        known = {name: Estimate(trace, 0.0, 0) for name, trace in traces.items()}
        gradient = self._gradient(alpha, known)
        return Evidence(Estimate(value, 0.0, 0), (value, value), gradient, method)

    def _value(self, alpha: Tensor, logdet: float) -> float:
        fit = float((self.residual * alpha).sum())
        return -0.5 * (fit + logdet + self.n * math.log(2 * math.pi))

    # d/dt log p = (a^T C' a - tr(C^-1 C')) / 2 with a = C^-1 r.
    def _gradient(
        self, alpha: Tensor, traces: dict[str, Estimate[float]]
    ) -> dict[str, Estimate[float]]:
        flat = alpha.reshape(1, -1)
        forms = {
            "log_outputscale": float((flat * self.seen.product(flat)).sum()),
            "log_noise_variance": self.s2 * float(alpha.square().sum()),
        }
        if "log_lengthscale" in traces:
            forms["log_lengthscale"] = float((flat * self._slope_product(alpha[None])).sum())
        gradient = {
            name: Estimate((forms[name] - trace.value) / 2, trace.standard_error / 2, trace.matvecs)
            for name, trace in traces.items()
            if self.s2 > 0 or name != "log_noise_variance"
        }
        gradient["mean"] = Estimate(float((self.seen.constant * alpha).sum()), 0.0, 0)
        return gradient


def dense_matrix(operator: MeasuredCovariance, product: Callable[[Tensor], Tensor]) -> Tensor:
    """Form a matrix over the entries that count."""
    n = operator.shape[0]
    eye = torch.eye(n, dtype=torch.float64, device=operator.device)
    matrix = torch.cat([product(part) for part in eye.split(_BLOCK, dim=1)], dim=1)
    return (matrix + matrix.T) / 2


def _averaged(values: list[float], matvecs: int) -> Estimate[float]:
    mean, error = mean_and_error(torch.tensor(values, dtype=torch.float64))
    return Estimate(float(mean), float(error), matvecs)
