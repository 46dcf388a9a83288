"""What is sampled: the density of a network's parameters, stated in full."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base import displays
from dipkernels.base.checks import checked
from dipkernels.base.kinds import Positive, Share
from dipkernels.base.origin import digest
from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.optimisers import curved, stable_learning_rate
from dipkernels.fitting.preparation import warn_of_ranges
from dipkernels.kernels.ntk import NTK
from dipkernels.priors.prior import ImagePrior, Parameters
from dipkernels.sampling.steps import STEP_SHARE
from dipkernels.tasks import Task

INITIALISATION = "initialisation"
# Tensors whose deviation is less than this share of the median one move in units of their own:
# one that is drawn at 1e-6 would force a step on all others at which nothing moves.
LEAST_SHARE = 1 / 300
PRIOR_DRAWS = 16  # of the initialisation, whose moments become the weight prior


@checked
@dataclass(frozen=True, eq=False)
class WeightPrior:
    """Independent Gaussians over the parameters.

    Attributes
    ----------
    mean, deviation : dict of str to Tensor
        By parameter; of its shape, or a number that holds for the whole tensor.
    name : str
        For records.
    """

    mean: Parameters
    deviation: Parameters
    name: str


def initialisation_prior(prior: ImagePrior, *, seed: int = 0) -> WeightPrior:
    """Gaussians with the mean and the variance of the network's own initialisation."""
    # Of what the initialisation doesn't draw but sets (the gains and offsets of a normalisation):
    # centred on that, with deviation 1.
    draws = prior.init_many([derive(f"weight-prior-{i}", seed) for i in range(PRIOR_DRAWS)])
    mean, deviation = {}, {}
    for key, values in draws.items():
        if bool((values == values[:1]).all()):
            mean[key], deviation[key] = values[0], torch.ones_like(values[0, ...].mean())
        else:
            pooled = values.double()
            mean[key] = pooled.mean().to(values)
            deviation[key] = pooled.std().to(values)
    return WeightPrior(mean, deviation, INITIALISATION)


@checked
def isotropic_prior(prior: ImagePrior, deviation: float, name: str | None = None) -> WeightPrior:
    """Gaussians around 0 with one deviation for all parameters.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    deviation : float
        Positive.
    name : str, optional
        For records.

    Returns
    -------
    WeightPrior
        The same for every tensor.

    Raises
    ------
    InvalidInputError
        If the deviation isn't positive and finite.
    """
    if not 0 < deviation < float("inf"):
        raise InvalidInputError(
            f"the deviation of the weight prior must be positive and finite, got {deviation}"
        )
    one = torch.tensor(deviation, device=prior.device, dtype=prior.dtype)
    values = dict.fromkeys(prior.parameter_shapes, one)
    means = {key: torch.zeros_like(value) for key, value in values.items()}
    return WeightPrior(means, values, name or f"isotropic({deviation:.6g})")


@checked
def weight_decay_prior(
    prior: ImagePrior, task: Task, weight_decay: Positive, *, noise_sigma: float | None = None
) -> WeightPrior:
    """Make the weight prior that a fit's weight decay stands for, at temperature 1.

    A fit descends ``misfit + weight_decay |w|^2 / 2``, where the misfit is a mean over all n
    entries of the measurement. That is the potential of a posterior times ``2 noise_sigma^2 / n``
    if the deviation of the weights is ``noise_sigma sqrt(2 / (n weight_decay))``; of another misfit
    than squares, times ``1 / (n s)`` if it's ``1 / sqrt(n s weight_decay)``, s being the scale of
    the task's law.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    task : Task
        What is fitted.
    weight_decay : float
        Of `dipkernels.fit`; positive.
    noise_sigma : float, optional
        By default the task's.

    Returns
    -------
    WeightPrior
        Isotropic.

    Raises
    ------
    InvalidInputError
        If the noise isn't known.
    """
    sigma = _noise(task, noise_sigma)
    deviation = (task.measurement.numel() * task.law.scale(sigma) * weight_decay) ** -0.5
    return isotropic_prior(prior, deviation, f"weight-decay({weight_decay:.6g})")


@checked
class WeightPosterior:
    """Density of the parameters of a network, given one measurement.

    It is proportional to ``exp(-U / temperature)`` with::

        U(w) = |y - A f(w)|^2 / (2 noise_sigma^2) + |(w - mean) / deviation|^2 / 2,

    over the measured entries y. Of a task with another misfit than squares, the first term is the
    sum of what its law (`dipkernels.tasks.misfits`) says: ``noise_sigma`` is the standard deviation
    of Laplace's noise; Poisson's and functions of yours have none. The temperature divides
    likelihood and prior alike (a *cold posterior* below 1); 1 is Bayes' rule.

    Parameters
    ----------
    prior : ImagePrior
        The network, which is used with its fixed code.
    task : Task
        What was measured; moved to the prior's device and type.
    noise_sigma : float, optional
        Standard deviation of an entry's noise, in the task's units; by default the task's.
    weight_prior : "initialisation", float or WeightPrior
        ``"initialisation"``: each tensor's mean and deviation in 16 initialisations, pooled over
        its entries; 1 where nothing is drawn. A number is the deviation of all around 0.
    temperature : float
        Positive.

    Attributes
    ----------
    scales : dict of str to float
        Of tensors whose weight prior is less than a 300th as wide as the median tensor's, as
        that of a token which is drawn at 1e-6: chains move them in this unit, others in 1. The
        density is the same; the step that all can take is larger.

    Raises
    ------
    InvalidInputError
        If something doesn't fit, the noise is 0 (the likelihood is a density only with noise), or
        a noise is given that the likelihood doesn't have.

    Examples
    --------
    >>> from dipkernels import ImagePrior, tasks
    >>> prior = ImagePrior(lambda: torch.nn.Conv2d(2, 1, 3, padding=1), torch.rand(1, 2, 8, 12))
    >>> task = tasks.denoise(torch.rand(1, 8, 12), noise_sigma=0.1)
    >>> WeightPosterior(prior, task).log_density(prior.init(0)).shape
    torch.Size([])
    """

    def __init__(
        self,
        prior: ImagePrior,
        task: Task,
        *,
        noise_sigma: float | None = None,
        weight_prior: WeightPrior | str | float = INITIALISATION,
        temperature: float = 1.0,
    ) -> None:
        if prior.shape != task.shape:
            raise InvalidInputError(
                f"{prior} makes images of shape {prior.shape}, the task has {task.shape}: create "
                "the prior with the task's image_size and channels"
            )
        self.temperature = temperature
        if not 0 < temperature < float("inf"):
            raise InvalidInputError(
                f"temperature must be positive and finite, got {temperature}: for temperature 0, "
                "which is no density, use dipkernels.fit"
            )
        warn_of_ranges(prior, [task])
        self.prior = prior
        self.task = task.to(device=prior.device, dtype=prior.dtype)
        self.noise_sigma = _noise(task, noise_sigma)
        self.weight_prior = _weight_prior(prior, weight_prior)
        self.scales = _scales(self.weight_prior)
        # The misfit is a mean over all entries of the measurement.
        self.scale = task.measurement.numel() * task.law.scale(self.noise_sigma)

    def log_density(self, parameters: Parameters) -> Float[Tensor, ""]:
        """Give ``-U / temperature``: the log density without its constant.

        Parameters
        ----------
        parameters : dict of str to Tensor
            As `ImagePrior.init` returns.

        Returns
        -------
        Tensor, shape ()
            Differentiable, and a pure function.
        """
        leaves = {key: value[None] for key, value in parameters.items()}
        misfits = self.task.misfit(self.prior.image(parameters)[None])
        return -potentials(self, leaves, misfits)[0] / self.temperature

    def stable_step(self, parameters: Parameters, *, share: Share = STEP_SHARE) -> float:
        """Choose a step of Langevin dynamics from the curvature at some parameters.

        Parameters
        ----------
        parameters : dict of str to Tensor
            As `ImagePrior.init` returns.
        share : float
            Of the limit of stability, ``2 / L``; in (0, 1). L bounds the largest eigenvalue of
            the Gauss-Newton Hessian: that of the NTK, as the task measures it, over noise_sigma^2
            (times the curvature of what errors cost, where these aren't squares), plus the largest
            precision of the weight prior, in the units in which chains move (`scales`). A plain
            Langevin step makes the variance along the stiffest direction ``1 / (1 - share)`` times
            too large, one with a momentum and little friction ``1 / (1 - share / 2)`` times, and
            that of all others less.

        Returns
        -------
        float
            For `sample`. Costs some tens of products with the NTK. The curvature elsewhere may be
            larger: a chain may diverge all the same.
        """
        metric = None
        if self.scales:
            units = {key: self.scales.get(key, 1.0) ** 2 for key in parameters}
            metric = {key: torch.full_like(p, units[key]) for key, p in parameters.items()}
        ntk, law = NTK(self.prior, parameters, metric=metric), self.task.law
        kernel = curved(ntk, self.task, self.noise_sigma)
        largest = kernel.shape[0] / (2 * stable_learning_rate(kernel))
        deviations = self.weight_prior.deviation.items()
        precision = max((self.scales.get(key, 1.0) / float(d.min())) ** 2 for key, d in deviations)
        return share * 2 / (2 * law.scale(self.noise_sigma) * largest + precision)

    def record(self) -> dict[str, str | float]:
        """Say what is sampled, fit for the attributes of a dataset.

        Returns
        -------
        dict
            Noise in units in which white is 1.
        """
        return {
            "target": f"exp(-U/temperature), U = {self.task.law.target} + "
            "|(w - mean) / deviation|^2 / 2",
            "noise_sigma": self.noise_sigma / self.task.data_range,
            "weight_prior": self.weight_prior.name,
            "temperature": self.temperature,
        }

    def __repr__(self) -> str:
        return (
            f"WeightPosterior({self.prior.name}, {self.task.name}, noise sigma "
            f"{self.noise_sigma:.3g}, weights {self.weight_prior.name}, temperature "
            f"{self.temperature:.3g})"
        )

    def _repr_html_(self) -> str:
        facts = [("network", repr(self.prior)), *self.record().items()]
        return displays.of_posterior(self, self.task, facts)


def potentials(
    posterior: WeightPosterior, leaves: Parameters, misfits: Float[Tensor, " chains"]
) -> Float[Tensor, " chains"]:
    """Give ``U`` of parameters ``(chains, ...)`` whose misfits are there already."""
    weights = posterior.weight_prior
    scaled = [(leaf - weights.mean[k]) / weights.deviation[k] for k, leaf in leaves.items()]
    parts = [each.reshape(len(each), -1).square().sum(dim=1) for each in scaled]
    return posterior.scale * misfits + 0.5 * torch.stack(parts).sum(dim=0)


def identity_of(posterior: WeightPosterior) -> dict[str, object]:
    """Say what a checkpoint belongs to, fit for JSON."""
    prior = posterior.weight_prior
    tables = [values[key] for key in prior.mean for values in (prior.mean, prior.deviation)]
    return {**posterior.record(), "weights": digest(*tables)}


def _scales(weights: WeightPrior) -> dict[str, float]:
    least = {key: float(d.min()) for key, d in weights.deviation.items()}
    typical = statistics.median_high(least.values())
    return {key: d / typical for key, d in least.items() if d < LEAST_SHARE * typical}


def _noise(task: Task, noise_sigma: float | None) -> float:
    if not task.law.takes_sigma:
        if noise_sigma is not None:
            raise InvalidInputError(
                f"noise_sigma has no effect: the misfit is {task.law.name}, which is the whole "
                "negative log-likelihood"
            )
        return task.noise_sigma
    sigma = task.noise_sigma if noise_sigma is None else noise_sigma
    if not 0 < sigma < float("inf"):
        raise InvalidInputError(
            f"the likelihood needs noise, got noise_sigma {sigma}: give noise_sigma=, the "
            "deviation that you believe the measurement's errors to have"
        )
    return sigma


def _weight_prior(prior: ImagePrior, given: WeightPrior | str | float) -> WeightPrior:
    if given == INITIALISATION:
        return initialisation_prior(prior)
    if isinstance(given, str):
        raise InvalidInputError(
            f"weight_prior must be '{INITIALISATION}', a number or a WeightPrior, got '{given}'"
        )
    if not isinstance(given, WeightPrior):
        return isotropic_prior(prior, given)
    _check_shapes(prior, given.mean)
    _check_shapes(prior, given.deviation)
    sound = all(bool((d > 0).all() and d.isfinite().all()) for d in given.deviation.values())
    if not (sound and all(bool(m.isfinite().all()) for m in given.mean.values())):
        raise InvalidInputError(
            "the means and deviations of a weight prior must be finite, deviations positive"
        )
    return given


def _check_shapes(prior: ImagePrior, values: Mapping[str, Tensor]) -> None:
    for key, shape in prior.parameter_shapes.items():
        if key not in values or tuple(values[key].shape) not in ((), shape):
            raise InvalidInputError(
                f"the weight prior needs a number or a tensor of shape {shape} for {key}"
            )
