"""What chains, and draws of the linearised network, will take, before they run."""

import itertools
import math
import statistics
import time
from dataclasses import replace

import torch

from dipkernels.base.words import readable_bytes
from dipkernels.planning import Plan, plan
from dipkernels.planning.planner import PRODUCT_STEPS, RATE_PRODUCTS
from dipkernels.planning.plans import DRAWS
from dipkernels.sampling.chains import chain_seeds
from dipkernels.sampling.collector import Collector
from dipkernels.sampling.langevin import Langevin
from dipkernels.sampling.posterior import WeightPosterior
from dipkernels.sampling.settings import ChainSettings, resolved
from dipkernels.tasks import Task

TIMED_STEPS = 5  # the first of them is a warm-up
TINY_STEP = 1e-16  # of the timed chains: they stay where they are
# Vectors of conjugate gradients, and of its draws, for each right-hand side, in pairs of float64.
SOLVER_PAIRS = 5


def plan_chains(posterior: WeightPosterior, settings: ChainSettings, *, timed: bool = True) -> Plan:
    """Say what `sample` will take."""
    searched = 0 if settings.step_size else 2 * RATE_PRODUCTS  # of each chain: start and warm-up
    planned = plan(
        posterior.prior,
        posterior.task,
        iterations=settings.iterations,
        seeds=settings.chains,
        matvecs=searched,
        checkpoint=True,
        timed=False,
    )
    planned = with_draws(planned, posterior.task, settings)
    planned = replace(planned, matvecs=searched * settings.chains)
    if not (timed and planned.fits):
        return planned
    step = _step_seconds(posterior, settings)
    product = PRODUCT_STEPS * step / settings.chains
    seconds = settings.iterations * step + planned.matvecs * product
    return replace(planned, step_seconds=step, matvec_seconds=product, seconds=seconds)


def with_draws(planned: Plan, task: Task, settings: ChainSettings) -> Plan:
    """Add the draws that are kept to the plan of a fit."""
    image = math.prod(task.shape) * task.measurement.element_size()
    kept = 2 * settings.chains * settings.draws * image
    if planned.device != "cpu":
        note = f"and {readable_bytes(kept)} on the host, for draws"
        return replace(planned, notes=(*planned.notes, note))
    parts = {name: dict(part) for name, part in planned.parts.items()}
    parts["fit"][DRAWS] = kept
    return replace(planned, parts=parts)


def plan_linearised(
    posterior: WeightPosterior,
    *,
    draws: int,
    max_iterations: int = 300,
    timed: bool = True,
) -> Plan:
    """Say what `linearised` will take at most."""
    columns = draws + 1
    pairs = SOLVER_PAIRS * columns
    planned = plan(posterior.prior, matvecs=pairs, columns=columns, timed=timed)
    matvecs = columns * max_iterations
    more = (matvecs - planned.matvecs) * planned.matvec_seconds
    return replace(planned, matvecs=matvecs, seconds=planned.seconds + more)


def _step_seconds(posterior: WeightPosterior, settings: ChainSettings) -> float:
    steady = replace(settings, step_size=TINY_STEP, schedule="constant", cycles=None)
    short = replace(steady, iterations=TIMED_STEPS + 1, burn_in=0, thin=1)
    trial = resolved(short, TINY_STEP)
    seeds = chain_seeds(settings.chains, settings.seed)
    langevin = Langevin(posterior, trial, posterior.prior.init_many(seeds), seeds)
    collector = Collector(posterior.task, trial)
    moments = []
    for _ in range(TIMED_STEPS):
        losses, images = langevin.evaluate()
        collector.add(losses.detach(), images.detach(), langevin.weight())
        langevin.step(losses, images)
        if posterior.prior.device.type == "cuda":
            torch.cuda.synchronize(posterior.prior.device)
        moments.append(time.perf_counter())
    # The median: the machine may have other things to do.
    return statistics.median(b - a for a, b in itertools.pairwise(moments))
