"""Errors of a linear fit from the function's action on a vector, region by region."""

import numpy as np
import torch
from torch import Tensor

from dipkernels.linalg.lanczos import KrylovSpace
from dipkernels.theory.dynamics import Dynamics
from dipkernels.theory.expansion import Expansion, as_array

TIMES_AT_ONCE = 16

Bounds = tuple[np.ndarray, np.ndarray, np.ndarray]  # lower, middle, upper, each (time, region)


def run_errors(expansion: Expansion, dynamics: Dynamics) -> Bounds:
    """Mean squared error of the fit that starts at the expansion's network.

    Parameters
    ----------
    expansion : Expansion
        From its ``start`` the fit sees what it sees: the clean image, or the measurement.
    dynamics : Dynamics
        Of the fit.

    Returns
    -------
    lower, middle, upper : ndarray, shape (t, regions)
        To the clean image.
    """
    shares = None
    if expansion.known is not None:
        values, vectors = expansion.known.values.cpu().numpy(), expansion.known.vectors
        learned = values * dynamics.accumulated(values)
        shares = learned * as_array(expansion.start @ vectors), vectors
    return _errors(expansion, dynamics, expansion.bias, expansion.residual, shares)


def probe_errors(expansion: Expansion, dynamics: Dynamics, space: KrylovSpace) -> Bounds:
    """Mean square of what a fit makes of a probe, and of known eigenvectors once each.

    Parameters
    ----------
    expansion : Expansion
        That the probe belongs to.
    dynamics : Dynamics
        Of the fit.
    space : KrylovSpace
        From the probe.

    Returns
    -------
    lower, middle, upper : ndarray, shape (t, regions)
        The mean over probes is that over noises of variance 1.
    """
    found = _errors(expansion, dynamics, space, torch.zeros_like(expansion.residual), None)
    values = space.deflated.nodes
    once = np.square(values * dynamics.accumulated(values)).sum(axis=1) / len(expansion.residual)
    low, middle, high = (part + once[:, None] for part in found)
    return low, middle, high


# Mean square over each region of `target` less what is learned of the start of the space, and of
# known vectors, whose coefficients come by times.
def _errors(
    expansion: Expansion,
    dynamics: Dynamics,
    space: KrylovSpace,
    target: Tensor,
    known: tuple[np.ndarray, Tensor] | None,
) -> Bounds:
    steps = len(space.alpha)
    fewer = steps if not steps or space.beta[-1] == 0 else max(1, steps - max(1, steps // 5))
    full = _coefficients(dynamics, space, steps)
    change = full.copy()
    change[:, :fewer] -= _coefficients(dynamics, space, fewer)
    masks = torch.stack([mask.double() for mask in expansion.regions.values()], dim=1)
    sizes = masks.sum(dim=0)
    squares, changes = [], []
    # in blocks of times, so that no more than a block of images is in memory
    for first in range(0, len(full), TIMES_AT_ONCE):
        block = slice(first, first + TIMES_AT_ONCE)
        some, changed = (torch.from_numpy(x[block]).to(target.device) for x in (full, change))
        error = target - some @ space.products
        if known is not None:
            error -= torch.from_numpy(known[0][block]).to(target.device) @ known[1].T
        squares.append(error.square() @ masks / sizes)
        changes.append((changed @ space.products).square() @ masks / sizes)
    root, gap = as_array(torch.cat(squares).sqrt()), as_array(torch.cat(changes).sqrt())
    # Where they bound nothing, both estimates must be small: what the last steps changed tells
    # little where they converge slowly, and the residual little of what wasn't measured.
    norm, bounded = _residual(space, full), dynamics.monotone(expansion.largest)
    for i, mask in enumerate(expansion.regions.values()):
        if bounded and not bool((mask & ~expansion.measured).any()):
            gap[:, i] = norm / np.sqrt(float(sizes[i]))
        else:
            typical = norm / np.sqrt(float(expansion.measured.sum()))
            gap[:, i] = np.maximum(gap[:, i], typical)
    return np.maximum(root - gap, 0) ** 2, root**2, (root + gap) ** 2


# Norm of the residual of what the space says, by times. It bounds the error over all measured
# outputs where the dynamics are monotone. With
# u' = v - A u and its approximation Q c(t), the residual is d(t) q_{m+1}, d = -beta_m c_m, and the
# error of A u is the integral of A exp(-(t - s) A) d(s) q_{m+1}. c_m is a divided difference of
# phi, whose sign doesn't change with t, so that |d| grows and the error is at most |d(t)|. So for
# descent, as long as all its factors 1 - step x are in [0, 1].
def _residual(space: KrylovSpace, coefficients: np.ndarray) -> np.ndarray:
    if not len(space.alpha):
        return np.zeros(len(coefficients))
    return np.asarray(space.beta[-1] * np.abs(coefficients[:, -1]))


# Of phi(Theta_oo) v in the first steps vectors of the basis, per time.
def _coefficients(dynamics: Dynamics, space: KrylovSpace, steps: int) -> np.ndarray:
    if not steps:
        return np.zeros((len(dynamics.times), 0))
    return space.action(dynamics.accumulated, steps)
