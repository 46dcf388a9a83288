"""Sample the posterior of a network's parameters, and see it as images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.options import gather, takes
from dipkernels.base.origin import digest
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.preparation import check_runs
from dipkernels.fitting.settings import FitSettings
from dipkernels.priors.prior import ImagePrior, Parameters
from dipkernels.sampling.chains import Chains, Checkpoint, chain_seeds, run_chains
from dipkernels.sampling.collector import Collector
from dipkernels.sampling.langevin import Langevin, stable_step
from dipkernels.sampling.posterior import WeightPosterior, identity_of
from dipkernels.sampling.settings import ChainSettings, record_of, resolved
from dipkernels.sampling.steps import SAMPLERS, STEP_SHARE


@takes(ChainSettings)
@checked
def sample(
    posterior: WeightPosterior,
    settings: ChainSettings | None = None,
    *,
    start: Parameters | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Run Markov chains whose limit is a posterior, up to a term of the order of the step.

    Unless a step is given, chains begin with 0.1 of the limit of stability at their starts, and
    after a warm-up take their method's share of the limit where they have come to: 0.9 with a
    momentum (``sghmc``), 0.1 without. The limit is ``2 / L`` by `WeightPosterior.stable_step`, with
    the mean of L over chains. Chains that leave their starts upward (within 100 iterations
    the misfit of one is ten times that at its start, or of noise; or nothing moves its image any
    more) all start anew with a tenth of the step, at most three times: a warning says so, and the
    attribute ``retreats`` how often.

    Parameters
    ----------
    posterior : WeightPosterior
        The target.
    settings : ChainSettings, optional
        The options, in one object; those that are given by name replace its own.
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
        Show a bar, on a terminal or in a notebook.
    **options
        Fields of `ChainSettings`.

    Returns
    -------
    xarray.Dataset
        Over ``chain`` and ``iteration``: ``loss`` (the mean misfit) and, where the clean image
        is known, ``psnr_clean`` and ``psnr_mean`` (of the image, and of the running mean of the
        chain, in dB, over the task's region); with held-out pixels ``held_out`` and
        ``held_out_mean``; with a momentum ``kinetic_temperature``, that of the target for a small
        step. Over ``(chain, channel, y, x)``: ``mean`` and ``std`` of all images after
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
    Cost: one training step for each chain and iteration, and twice some tens of products with the
    NTK for each chain. A CPU takes the chains of more than 20 000 parameters one after another.
    """
    settings = gather(ChainSettings, settings, options, "sample")
    prior, task = posterior.prior, posterior.task
    check_runs(prior, [task], [settings.seed], FitSettings())
    seeds = chain_seeds(settings.chains, settings.seed)
    starts = _starts(prior, seeds, start)
    kept = Checkpoint(checkpoint, prior, task, _identity(posterior, settings, starts))
    step = settings.step_size
    if step is None and kept.state is not None:
        step = kept.state["dynamics"]["step_size"]
    whole = resolved(settings, step or stable_step(posterior, starts, STEP_SHARE))
    langevin = Langevin(posterior, whole, starts, seeds, settings.warm_up)
    collector = Collector(task, whole, watched=[*langevin.watched()])
    attributes = {**posterior.record(), **record_of(whole)}
    return run_chains(Chains(langevin, collector), prior, attributes, kept, progress=progress)


def _starts(prior: ImagePrior, seeds: Sequence[int], start: Parameters | None) -> Parameters:
    if start is None:
        return prior.init_many(seeds)
    if start.keys() - prior.parameter_shapes.keys():
        raise InvalidInputError(
            f"start must be a dict of parameters of {prior}, as prior.init() or load_parameters() "
            f"give them, got {sorted(start)}"
        )
    found = {}
    for key, shape in prior.parameter_shapes.items():
        value = start.get(key)
        if value is None or tuple(value.shape) not in (shape, (len(seeds), *shape)):
            raise InvalidInputError(
                f"start must hold {key} of shape {shape}, or {(len(seeds), *shape)} for "
                f"{len(seeds)} chains"
            )
        found[key] = value.expand(len(seeds), *shape).detach().to(prior.device, prior.dtype)
    return found


# With a constant step, what comes doesn't depend on how much more is to come.
def _identity(
    posterior: WeightPosterior, settings: ChainSettings, starts: Parameters
) -> dict[str, Any]:
    values = record_of(resolved(settings, settings.step_size))
    if settings.schedule == "constant":
        del values["iterations"]
    if settings.step_size is None:
        share = SAMPLERS[settings.method].share
        values["step_rule"] = f"{share} of the limit after {settings.warm_up} iterations"
    return {**values, **identity_of(posterior), "start": digest(*starts.values())}
