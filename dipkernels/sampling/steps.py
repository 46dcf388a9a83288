"""One step of each sampler, as a pure function of parameters, gradients and noise.

Parameters are dicts of tensors with a leading axis over chains; chains share nothing. The gradient
is that of the potential U over the whole measurement: one image is one datum, there are no
mini-batches, and what the literature calls *stochastic gradient* Langevin dynamics has no
stochastic gradient here. It is the unadjusted Langevin algorithm. The density that a finite step
leaves unchanged differs from the target by a term of the order of the step; for a Gaussian target
of precision H and a plain step e its covariance is ``T H^-1 (1 - e H / 2)^-1``.
"""

import math

from torch import Tensor

from dipkernels.priors.prior import Parameters

SMOOTHING = 0.99  # of the mean squares of gradients, as Li et al. have it
DAMPING = 1e-5  # likewise


def sgld_step(
    parameters: Parameters,
    gradients: Parameters,
    noise: Parameters,
    step: float,
    temperature: float,
) -> Parameters:
    """Take a step of Langevin dynamics, ``w - e g + sqrt(2 e T) noise``.

    Parameters
    ----------
    parameters, gradients, noise : dict of str to Tensor
        ``w``, the gradient ``g`` of the potential at w, and standard normal draws.
    step : float
        ``e``. Welling & Teh's step is 2e.
    temperature : float
        ``T``.

    Returns
    -------
    dict of str to Tensor
        The next w.

    Notes
    -----
    Source: Welling & Teh 2011, with the gradient of all data. On a Gaussian target it is stable
    while ``e < 2 / L``, L being the largest eigenvalue of the precision.
    """
    size = math.sqrt(2 * step * temperature)
    return {k: w - step * gradients[k] + size * noise[k] for k, w in parameters.items()}


def update_mean_squares(mean_squares: Parameters, gradients: Parameters) -> Parameters:
    """Follow the mean squares of gradients, for the preconditioner."""
    return {
        k: SMOOTHING * v + (1 - SMOOTHING) * gradients[k].square() for k, v in mean_squares.items()
    }


def psgld_step(
    parameters: Parameters,
    gradients: Parameters,
    noise: Parameters,
    step: float,
    temperature: float,
    mean_squares: Parameters,
) -> Parameters:
    """Take a step of Langevin dynamics in the metric of RMSprop.

    ``w - e G g + sqrt(2 e T G) noise`` with ``G = 1 / (1e-5 + sqrt(v))``.

    Parameters
    ----------
    parameters, gradients, noise : dict of str to Tensor
        As in `sgld_step`.
    step : float
        ``e``.
    temperature : float
        ``T``.
    mean_squares : dict of str to Tensor
        ``v``; see `update_mean_squares`.

    Returns
    -------
    dict of str to Tensor
        The next w.

    Notes
    -----
    Source: Li et al. 2016, who let v move all the time and then need the term
    ``Gamma = sum over j of d G_ij / d w_j``, which they drop for its cost. Here v follows the
    gradients during burn-in and stays as it is afterwards: G is constant, Gamma is 0 and the target
    is left unchanged up to the term of the order of the step.
    """
    following = {}
    for key, w in parameters.items():
        metric = 1 / (DAMPING + mean_squares[key].sqrt())
        size = math.sqrt(2 * step * temperature) * metric.sqrt()
        following[key] = w - step * metric * gradients[key] + size * noise[key]
    return following


def sghmc_step(
    parameters: Parameters,
    gradients: Parameters,
    noise: Parameters,
    step: float,
    temperature: float,
    velocities: Parameters,
    friction: float,
) -> tuple[Parameters, Parameters]:
    """Take a step of Langevin dynamics with momentum.

    ``v' = (1 - a) v - e g + sqrt(2 a e T) noise`` and ``w' = w + v'``.

    Parameters
    ----------
    parameters, gradients, noise : dict of str to Tensor
        As in `sgld_step`.
    step : float
        ``e``: the square of the step of Hamiltonian dynamics of mass 1.
    temperature : float
        ``T``.
    velocities : dict of str to Tensor
        ``v``.
    friction : float
        ``a`` in (0, 1): 1 less the momentum of an optimiser.

    Returns
    -------
    parameters, velocities : dict of str to Tensor
        The next w and v.

    Notes
    -----
    Source: Chen et al. 2014, eq. 15, without their estimate of the gradient's noise: there is none.
    """
    size = math.sqrt(2 * friction * step * temperature)
    moved = {
        k: (1 - friction) * v - step * gradients[k] + size * noise[k] for k, v in velocities.items()
    }
    return {k: w + moved[k] for k, w in parameters.items()}, moved


def zeros_like(parameters: Parameters) -> dict[str, Tensor]:
    """Make a dict of zeros of the same shapes."""
    return {key: value.detach().new_zeros(value.shape) for key, value in parameters.items()}
