"""Decay and accumulated of every optimiser, in high precision and step by step."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from dipkernels.errors import InvalidInputError
from dipkernels.theory import Dynamics, GradientDescent, GradientFlow

EIGENVALUES = np.array([0.0, 1e-300, 1e-17, 1e-14, 1e-9, 1e-4, 0.03, 0.4, 0.5, 0.7, 1.0])


def both(eigenvalue: float, time: int) -> list[tuple[float, float]]:
    """Decay and accumulated of the flow and of descent with step 0.9, in 60 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(400):
        x, step = mpmath.mpf(eigenvalue), mpmath.mpf(0.9)
        flow, descent = mpmath.exp(-time * x), (1 - step * x) ** time
        out = []
        for decay, limit in ((flow, mpmath.mpf(time)), (descent, step * time)):
            out.append((float(decay), float((1 - decay) / x if x else limit)))
        return out


@pytest.mark.parametrize("time", [0, 1, 2, 77, 100_000])
def test_scalar_functions_are_right_to_the_last_digits(time: int) -> None:
    flow = GradientFlow(np.array([float(time)]))
    descent = GradientDescent(0.9, np.array([time]))
    exact = np.array([both(x, time) for x in EIGENVALUES])  # (eigenvalue, dynamics, function)
    for i, dynamics in enumerate((flow, descent)):
        # time roundings in a power; none to speak of in what accumulates, however small
        np.testing.assert_allclose(
            dynamics.decay(EIGENVALUES)[0], exact[:, i, 0], rtol=0, atol=1e-15 * max(time, 1)
        )
        np.testing.assert_allclose(dynamics.accumulated(EIGENVALUES)[0], exact[:, i, 1], rtol=1e-13)


def test_what_accumulates_is_the_integral_of_the_decay() -> None:
    eigenvalues, times, h = np.array([0.0, 1e-3, 0.2, 1.7, 30.0]), np.array([0.3, 1.0, 9.0]), 1e-5
    after, before = (GradientFlow(times + d).accumulated(eigenvalues) for d in (h, -h))
    # central differences: error h^2 x^2 / 6, here below 2e-8
    np.testing.assert_allclose(
        (after - before) / (2 * h), GradientFlow(times).decay(eigenvalues), atol=3e-8
    )
    descent = GradientDescent(1 / 20, np.arange(40))
    steps = np.diff(descent.accumulated(eigenvalues), axis=0)
    np.testing.assert_allclose(steps, descent.decay(eigenvalues)[:-1] / 20, atol=1e-14)


def test_small_steps_of_descent_are_the_flow() -> None:
    eigenvalues, times = np.array([0.0, 0.1, 1.0, 3.0]), np.array([0.5, 2.0])
    flow = GradientFlow(times)
    for step in (1e-3, 1e-5):
        descent = GradientDescent(step, np.rint(times / step).astype(int))
        # relative error of first order, t x^2 step / 2
        for name in ("decay", "accumulated"):
            np.testing.assert_allclose(
                getattr(descent, name)(eigenvalues),
                getattr(flow, name)(eigenvalues),
                rtol=10 * step,
            )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientFlow(np.array([])), "non-empty"),
        (lambda: GradientFlow(np.array([1.0, -1.0])), "aren't negative"),
        (lambda: GradientFlow(np.array([np.nan])), "finite"),
        (lambda: GradientFlow(np.ones((2, 2))), "non-empty array"),
        (lambda: GradientDescent(1.0, np.array([-1])), "aren't negative"),
        (lambda: GradientDescent(1.0, np.array([1.0])), "iterations must be integers, got float64"),
        (lambda: GradientDescent(0.0, np.arange(3)), "positive and finite, got 0.0"),
        (lambda: GradientDescent(math.inf, np.arange(3)), "positive and finite, got inf"),
        (lambda: GradientDescent(math.nan, np.arange(3)), "step must be a finite number, got nan"),
    ],
)
def test_dynamics_validate_their_settings(make: Callable[[], Dynamics], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()
