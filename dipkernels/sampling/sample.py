"""Sample the posterior of a network's parameters, and see it as images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from dipkernels.checkpoints import Saver
from dipkernels.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.preparation import check_runs, describe_start, describe_task
from dipkernels.fitting.settings import FitSettings
from dipkernels.networks.prior import ImagePrior, Parameters
from dipkernels.provenance import fingerprint
from dipkernels.sampling.chains import Chains, finish
from dipkernels.sampling.collector import Collector
from dipkernels.sampling.dynamics import GpDip, Langevin
from dipkernels.sampling.settings import ChainSettings
from dipkernels.sampling.target import Posterior
from dipkernels.seeds import derive
from dipkernels.tasks import Task


def sample(
    posterior: Posterior,
    *,
    method: str = "sgld",
    iterations: int = 10000,
    burn_in: int | None = None,
    thin: int | None = None,
    step_size: float | None = None,
    schedule: str = "constant",
    cycles: int | None = None,
    friction: float | None = None,
    chains: int = 4,
    seed: int = 0,
    start: Parameters | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Run Markov chains whose limit is a posterior, up to a term of the order of the step.

    The gradient is that of the whole measurement: SGLD is the unadjusted Langevin algorithm here.

    Parameters
    ----------
    posterior : Posterior
        The target.
    method : {"sgld", "psgld", "sghmc"}
        See `sgld_step`, `psgld_step` (its metric moves during burn-in only) and `sghmc_step`.
    iterations : int
        Images of each chain. Iteration i is the image after i steps.
    burn_in : int, optional
        Iterations that don't count; by default half of them.
    thin : int, optional
        Iterations from one draw that is kept to the next; by default such that at most some 400
        are kept. They take ``chains * draws * image`` of memory on the host.
    step_size : float, optional
        By default the smallest `Posterior.stable_step` of the chains' starts; ``psgld`` needs one.
    schedule : {"constant", "polynomial", "cosine", "cyclical"}
        Of the step; see `step_factor`. Moments weigh each image by its step; draws have no weight.
    cycles : int, optional
        Of ``cyclical``.
    friction : float, optional
        Of ``sghmc``, in (0, 1); by default 0.1.
    chains : int
        Each from an initialisation of its own, with noise of its own. They share nothing.
    seed : int
        Of all of that.
    start : dict of str to Tensor, optional
        Where the chains start instead: ``(chains, ...)``, or one set of parameters for all (those
        of a fit, by `dipkernels.fitting.load_parameters`). R-hat trusts chains whose starts are
        spread more widely than the posterior; equal starts can hide that they haven't met.
    checkpoint : str or Path, optional
        File in which the state is kept, saved every half minute and at the end. The same call with
        the same file continues what was begun, with the bits of an uninterrupted run (on a CPU with
        as many threads); with a constant step, and `burn_in` and `thin` given, a call with more
        iterations goes on from there.
    progress : bool
        Show a bar, if on a terminal.

    Returns
    -------
    xarray.Dataset
        Over ``chain`` and ``iteration``: ``loss`` (mean squared misfit) and, where the clean image
        is known, ``psnr_clean`` and ``psnr_mean`` (of the image, and of the running mean of the
        chain, in dB, over the task's region); with held-out pixels ``held_out`` and
        ``held_out_mean``. Over ``(chain, channel, y, x)``: ``mean`` and ``std`` of all images after
        burn-in. ``draws`` over ``(chain, draw, channel, y, x)``. ``ended_at`` says which chains
        diverged, and when: their images are NaN, the others go on. Images in units in which white
        is 1; they hold no noise of the measurement.

    Raises
    ------
    InvalidInputError
        If an option is out of range or has no effect, or the start doesn't fit.
    DivergenceError
        If all chains diverge.
    SamplingInterrupted
        On Ctrl-C, with what there is until then.

    Notes
    -----
    Cost: one training step for each chain and iteration. A CPU takes the chains of a network of
    more than 20 000 parameters one after another.
    """
    if not isinstance(posterior, Posterior):
        raise InvalidInputError(f"sample takes a Posterior, got {type(posterior).__name__}")
    settings = ChainSettings(
        method, iterations, burn_in, thin, step_size, schedule, cycles, friction, chains, seed
    )
    prior, task = posterior.prior, posterior.task
    check_runs(prior, [task], [seed], FitSettings())
    seeds = _seeds(chains, seed)
    starts = _starts(prior, seeds, start)
    saver = state = None
    if checkpoint is not None:
        saver = Saver(Path(checkpoint), _identity(posterior, settings, starts), kind="chains")
        state = saver.load()
    found = settings.step_size
    if found is None:
        found = state["step_size"] if state else _common_step(posterior, starts, chains)
    resolved = settings.resolved(found)
    run = _Sampled(
        Langevin(posterior, resolved, starts, seeds),
        _collector(task, resolved),
        resolved.iterations,
        found,
    )
    _resume(run, state, checkpoint)
    label = f"{prior.name}: {method}" + f" x {chains}" * (chains > 1)
    status = run.run(label, saver, progress=progress)
    attributes = {**posterior.record(), **resolved.record()}
    return finish(run, prior, task, status, attributes)


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

    It is Adam on the mean squared misfit, with weight decay and noise on the code; after every
    step, noise of a constant deviation is added to the parameters with four axes, those of 2D
    convolutions; gains, offsets and biases get none. The images after burn-in, thinned, are
    averaged. No temperature is stated, and none follows: noise of that deviation does not belong to
    Adam's step, so that no density is known that this would sample. For one that is, see `sample`.

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
        Deviation of the noise on the code at every iteration. Images are those of the perturbed
        code.
    weight_noise : float, optional
        Deviation of the noise on the parameters; by default twice the learning rate.
    backtracking : float, optional
        As in `dipkernels.fit`: 5 dB.
    iterations, burn_in, thin : int
        The first of the 259 draws is the image after 7050 steps, the last that after 19950.
    chains : int
        Each from an initialisation of its own.
    seed : int
        Of all of that.
    checkpoint : str or Path, optional
        As in `sample`.
    progress : bool
        Show a bar, if on a terminal.

    Returns
    -------
    xarray.Dataset
        As `sample` returns; ``mean`` and ``std`` are those of the draws.

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
            f"weight_noise must be positive and finite, got {noise}: without it, use dipkernels.fit"
        )
    check_runs(prior, [task], [seed], settings)
    task = task.to(device=prior.device, dtype=prior.dtype)
    seeds = _seeds(chains, seed)
    collector = _collector(task, counts, of_draws=True)
    run = Chains(GpDip(prior, task, seeds, settings, noise), collector, iterations)
    attributes: dict[str, Any] = {
        **settings.record(),
        "method": "gp-dip",
        "target": "none is known: Adam and noise of constant deviation on some parameters",
        "weight_noise": noise,
        "noise_sigma": task.noise_sigma / task.peak,
        "burn_in": burn_in,
        "thin": thin,
        "chains": chains,
        "seed": seed,
    }
    saver = state = None
    if checkpoint is not None:
        identity = {k: v for k, v in attributes.items() if k != "iterations"}
        saver = Saver(Path(checkpoint), {**identity, **_what(prior, task)}, kind="chains")
        state = saver.load()
    _resume(run, state, checkpoint)
    label = f"{prior.name}: gp-dip" + f" x {chains}" * (chains > 1)
    status = run.run(label, saver, progress=progress)
    return finish(run, prior, task, status, attributes)


class _Sampled(Chains):
    """Chains whose step was chosen at their start."""

    def __init__(
        self, dynamics: Langevin, collector: Collector, iterations: int, step_size: float
    ) -> None:
        super().__init__(dynamics, collector, iterations)
        self._step_size = step_size

    def state(self) -> dict[str, Any]:
        return {**super().state(), "step_size": self._step_size}


def _resume(run: Chains, state: dict[str, Any] | None, checkpoint: str | Path | None) -> None:
    if state is None:
        return
    done = len(state["collector"]["trace"])
    if done > run.iterations:
        raise InvalidInputError(
            f"the chains in {checkpoint} have {done} iterations already, {run.iterations} were "
            "asked for: ask for more, or choose another checkpoint"
        )
    run.load(state)


def _collector(task: Task, settings: ChainSettings, *, of_draws: bool = False) -> Collector:
    return Collector(
        task,
        settings.chains,
        settings.iterations,
        burn_in=settings.burned,
        thin=settings.stride,
        draws=settings.draws,
        of_draws=of_draws,
    )


def _seeds(chains: int, seed: int) -> list[int]:
    return [derive(f"chain-{i}", seed) for i in range(chains)]


def _starts(prior: ImagePrior, seeds: Sequence[int], start: Parameters | None) -> Parameters:
    if start is None:
        return prior.init_many(seeds)
    if not isinstance(start, dict) or start.keys() - prior.parameter_shapes.keys():
        raise InvalidInputError(
            f"start must be a dict of parameters of {prior}, as prior.init() or load_parameters() "
            f"give them, got {sorted(start) if isinstance(start, dict) else type(start).__name__}"
        )
    found = {}
    for key, shape in prior.parameter_shapes.items():
        value = start.get(key)
        if value is not None and tuple(value.shape) == shape:
            value = value.expand(len(seeds), *shape)
        if value is None or tuple(value.shape) != (len(seeds), *shape):
            raise InvalidInputError(
                f"start must hold {key} of shape {shape}, or {(len(seeds), *shape)} for "
                f"{len(seeds)} chains"
            )
        found[key] = value.detach().to(prior.device, prior.dtype)
    return found


def _common_step(posterior: Posterior, starts: Parameters, chains: int) -> float:
    return min(
        posterior.stable_step({key: value[i] for key, value in starts.items()})
        for i in range(chains)
    )


# With a constant step, what comes doesn't depend on how much more is to come.
def _identity(posterior: Posterior, settings: ChainSettings, starts: Parameters) -> dict[str, Any]:
    values = replace(settings, burn_in=settings.burned, thin=settings.stride).record()
    if settings.schedule == "constant":
        del values["iterations"]
    return {
        **values,
        **posterior.identity(),
        **_what(posterior.prior, posterior.task),
        "start": fingerprint(*starts.values()),
    }


def _what(prior: ImagePrior, task: Task) -> dict[str, Any]:
    return {
        "prior": repr(prior),
        **describe_start(prior, 0),
        "dtype": str(prior.dtype),
        "device": str(prior.device),
        "task": describe_task(task, prior),
    }
