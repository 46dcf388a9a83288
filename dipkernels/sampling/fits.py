"""Fits whose images are taken for draws: no density stands behind them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.kinds import at_least
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.preparation import check_runs
from dipkernels.fitting.settings import FitSettings
from dipkernels.kernels.layers import select_parameters
from dipkernels.priors.prior import ImagePrior
from dipkernels.sampling.chains import Chains, Checkpoint, chain_seeds, run_chains
from dipkernels.sampling.collector import Collector
from dipkernels.sampling.descents import Dropout, Fits, GpDip, Iterates, kernels_of
from dipkernels.sampling.settings import ChainSettings
from dipkernels.tasks import Task

F = TypeVar("F", bound=Fits)

# Of a fit, what `averaged` and `mc_dropout` pass on.
OPTIONS = (
    *("optimiser", "learning_rate", "momentum", "schedule", "weight_decay", "gradient_clip"),
    *("total_variation_weight", "total_variation", "backtracking"),
)


@checked
def gp_dip(
    prior: ImagePrior,
    task: Task,
    *,
    learning_rate: float = 0.01,
    weight_decay: float = 5e-8,
    input_noise: float = 1 / 30,
    weight_noise: float | None = None,
    backtracking: float | None = 5.0,
    iterations: int = 20000,
    burn_in: int = 7000,
    thin: int = 50,
    chains: int = 1,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Run what Cheng et al. published as SGLD (GP-DIP), with their settings for denoising.

    It is Adam with weight decay and noise on the code; after every step, noise of a constant
    deviation is added to the parameters with four axes. The images after burn-in, thinned, are
    averaged. The target distribution isn't known; for a known one, see `sample`.

    Parameters
    ----------
    prior : ImagePrior
        The network; theirs is `skip`.
    task : Task
        What was measured.
    learning_rate : float
        Adam's, constant.
    weight_decay : float
        As in `dipkernels.fit`.
    input_noise : float
        As of `averaged`.
    weight_noise : float, optional
        Deviation of the noise on the parameters; by default twice the learning rate.
    backtracking : float, optional
        As in `dipkernels.fit`: 5 dB.
    iterations, burn_in, thin : int
        The first of the 259 draws is the image after 7050 steps, the last that after 19950.
    chains, seed, checkpoint, progress
        As of `averaged`.

    Returns
    -------
    xarray.Dataset
        As `sample` returns; ``mean`` and ``std`` are those of the draws. ``rollbacks`` over
        ``chain``: how often backtracking acted.

    Raises
    ------
    InvalidInputError
        If an option is out of range, or no parameter has four axes.
    DivergenceError
        If all chains diverge.
    SamplingInterrupted
        On Ctrl-C, with what there is until then.

    Notes
    -----
    Source: Cheng et al. 2019 (arXiv:1904.07457), their code for 2D denoising.
    """
    counts = ChainSettings(
        iterations=iterations, burn_in=burn_in, thin=thin, chains=chains, seed=seed
    )
    settings = FitSettings(
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        input_noise=input_noise,
        backtracking=backtracking,
        iterations=iterations,
    )
    noise = 2 * learning_rate if weight_noise is None else weight_noise
    if not 0 < noise < float("inf"):
        raise InvalidInputError(
            f"weight_noise must be positive and finite, got {noise}: without it, use "
            "sampling.averaged"
        )
    _, result = _run(
        partial(GpDip, noise=noise), prior, task, settings, counts, checkpoint, progress=progress,
        weight_noise=noise, burn_in=burn_in, thin=thin,
    )  # fmt: skip
    return result


@checked
def averaged(
    prior: ImagePrior,
    task: Task,
    *,
    iterations: int = 3000,
    burn_in: int | None = None,
    thin: int | None = None,
    input_noise: float = 1 / 30,
    chains: int = 1,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Fit, stop after so many iterations, and take the iterates before for draws.

    No density is sampled: what moves the iterates is the noise on the code, and the drift towards
    a fit of the measurement's noise, which goes on. Every gradient is that of the whole image.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    task : Task
        What was measured.
    iterations : int
        Images of each chain, at least 3: where it's stopped.
    burn_in : int, optional
        Iterations that don't count; by default half of them.
    thin : int, optional
        Iterations from one draw to the next; see `sample`.
    input_noise : float
        Deviation of the noise on the code at every iteration; images are those of the perturbed
        code. By default Cheng et al.'s; at 0 plain gradients converge, and the spread goes to 0.
    chains : int
        Fits, each from an initialisation of its own.
    seed : int
        Of all of that.
    checkpoint : str or Path, optional
        As in `sample`; with a constant rate, and `burn_in` and `thin` given, a call with more
        iterations goes on.
    progress : bool
        Show a bar, on a terminal or in a notebook.
    **options
        Of `dipkernels.fit`: ``optimiser`` (all but L-BFGS), ``learning_rate``, ``momentum``,
        ``schedule``, ``weight_decay``, ``total_variation_weight``, ``total_variation``,
        ``gradient_clip``, ``backtracking``.

    Returns
    -------
    xarray.Dataset
        As `sample` returns: ``mean`` is the average of the images after burn-in. Besides,
        ``image_of_mean`` over ``(chain, channel, ...)``: the image of the averaged parameters for
        the code without noise, which differs from the average of images as the network is curved.

    Raises
    ------
    InvalidInputError
        If an option is out of range, or not one of those.
    DivergenceError
        If all chains diverge.
    SamplingInterrupted
        On Ctrl-C, with what there is until then, without ``image_of_mean``.

    Notes
    -----
    Cost: a fit for each chain. The running average with a decay that the literature shows is
    `deep_ensemble` with ``picture="average"``.
    Sources: Mandt et al. 2017; Izmailov et al. 2018 and Maddox et al. 2019 for averaged parameters,
    without their Gaussian around it; Cheng et al. 2019 for averages of images.

    Examples
    --------
    >>> from dipkernels import networks, tasks
    >>> prior = networks.create("deep-decoder", image_size=(16, 24), width=8)
    >>> task = tasks.denoise(torch.full((3, 16, 24), 0.5), noise_sigma=0.1)
    >>> averaged(prior, task, iterations=9, chains=2).draws.shape
    (2, 4, 3, 16, 24)
    """
    counts = ChainSettings(
        iterations=iterations, burn_in=burn_in, thin=thin, chains=chains, seed=seed
    )
    settings = _fit_settings(options, iterations, input_noise=input_noise)
    descent, result = _run(
        partial(Iterates, burn_in=counts.burned), prior, task, settings, counts, checkpoint,
        progress=progress, burn_in=counts.burned, thin=counts.stride,
    )  # fmt: skip
    means = [{key: value[i] for key, value in descent.mean.items()} for i in range(chains)]
    with torch.no_grad():
        images = [prior.image(mean) for mean in means]
    dims = result["mean"].dims
    whole = (result["ended_at"] < 0).values.reshape(-1, *[1] * len(task.shape))
    stacked = torch.stack(images).where(torch.from_numpy(whole).to(prior.device), torch.nan)
    return result.assign(image_of_mean=(dims, (stacked / task.data_range).cpu().numpy()))


@checked
def mc_dropout(
    prior: ImagePrior,
    task: Task,
    *,
    rate: float = 0.1,
    iterations: int = 3000,
    draws: Annotated[int, at_least(2)] = 100,
    layers: str | list[str] | None = None,
    chains: int = 1,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Fit with dropout, and go on dropping while images are drawn.

    In front of every convolution and linear map each channel of the input, the code's too, is
    dropped with a probability, anew at every iteration and for every draw; those that are kept are
    divided by the probability of being kept. No module is changed, so that any network serves.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    task : Task
        What was measured.
    rate : float
        Probability of being dropped, in (0, 1). Nothing of the measurement sets it, and the
        spread of the draws depends on it.
    iterations : int
        Steps of the fit.
    draws : int
        How many of each chain, after the fit; independent given it.
    layers : str or list of str, optional
        Of which layers inputs are dropped: names of their parameters, of modules above them, or
        patterns (see `dipkernels.NTK`); by default of all with several input channels. Torch's
        fused attention weights and parametrised ones are never among them.
    chains, seed, progress, **options
        As of `averaged`.
    checkpoint : str or Path, optional
        As in `sample`; a call with more draws goes on.

    Returns
    -------
    xarray.Dataset
        As `sample` returns, of the fit's iterations and then those of the draws; ``mean`` and
        ``std`` are those of the draws. Attribute ``layers``: how many drop.

    Raises
    ------
    InvalidInputError
        If an option is out of range, or there is no layer to drop inputs of.
    DivergenceError
        If all chains diverge.
    SamplingInterrupted
        On Ctrl-C, with what there is until then.

    Notes
    -----
    Cost: a fit for each chain, and a forward pass a draw. With a weight decay of
    ``2 noise_sigma^2 / (n (1 - rate) s^2)``, n the entries of the measurement, the objective is up
    to constants the variational bound of a network whose kernels have the prior deviation s, over
    approximate posteriors of that one form (`weight_decay_prior` at rate 0).
    Source: Gal & Ghahramani 2016; dropping whole channels, Tompson et al. 2015.

    Examples
    --------
    >>> from dipkernels import networks, tasks
    >>> prior = networks.create("deep-decoder", image_size=(16, 24), width=8)
    >>> task = tasks.denoise(torch.full((3, 16, 24), 0.5), noise_sigma=0.1)
    >>> mc_dropout(prior, task, iterations=5, draws=4).draws.shape
    (1, 4, 3, 16, 24)
    """
    if not 0 < rate < 1:
        raise InvalidInputError(
            f"rate must be in (0, 1), got {rate}: without dropout, use sampling.deep_ensemble"
        )
    settings = _fit_settings(options, iterations)
    # The first image after the last step is the first draw.
    counts = ChainSettings(
        iterations=iterations + draws, burn_in=iterations - 1, thin=1, chains=chains, seed=seed
    )
    kernels = kernels_of(prior)
    if not kernels:
        raise InvalidInputError(
            f"{prior} has no convolution and no linear map with several input channels whose "
            "kernel is a parameter: there is nothing to drop"
        )
    names = list(kernels) if layers is None else select_parameters(list(kernels), layers)
    dropped = {name: kernels[name] for name in names}
    _, result = _run(
        partial(Dropout, rate=rate, kernels=dropped), prior, task, settings, counts, checkpoint,
        progress=progress, rate=rate, layers=len(names), draws=draws,
    )  # fmt: skip
    return result


def _fit_settings(options: dict[str, Any], iterations: int, **fixed: Any) -> FitSettings:
    """Make the settings of a fit that is watched as a chain."""
    if unknown := sorted(options.keys() - {*OPTIONS}):
        raise InvalidInputError(
            f"{', '.join(unknown)} can't be chosen here; what can be of a fit: {', '.join(OPTIONS)}"
        )
    if options.get("optimiser") == "l-bfgs":
        raise InvalidInputError(
            "optimiser 'l-bfgs' searches along lines of one fixed objective, and here it is "
            "another at every iteration: use 'adam', 'sgd' or 'gradient-descent'"
        )
    return FitSettings(**options, **fixed, iterations=iterations)


def _run(
    make: Callable[..., F],
    prior: ImagePrior,
    task: Task,
    settings: FitSettings,
    counts: ChainSettings,
    checkpoint: str | Path | None,
    *,
    progress: bool,
    **recorded: Any,
) -> tuple[F, xr.Dataset]:
    """Run fits as chains, or what a checkpoint has left of them."""
    check_runs(prior, [task], [counts.seed], settings)
    task = task.to(device=prior.device, dtype=prior.dtype)
    fits = make(prior, task, chain_seeds(counts.chains, counts.seed), settings)
    attributes: dict[str, Any] = {
        **settings.record(),
        **recorded,
        "method": fits.method,
        "target": fits.target,
        "learning_rate": fits.rates[0],
        "noise_sigma": task.noise_sigma / task.data_range,
        "chains": counts.chains,
        "seed": counts.seed,
    }
    identity = {key: value for key, value in attributes.items() if key != fits.longer}
    kept = Checkpoint(checkpoint, prior, task, identity)
    chains = Chains(fits, Collector(task, counts, of_draws=fits.of_draws))
    result = run_chains(chains, prior, attributes, kept, progress=progress)
    if settings.backtracking is not None:
        result = result.assign(rollbacks=("chain", fits.rollbacks.cpu().numpy()))
    return fits, result
