"""`plan`: what a fit and its kernel will take, from shapes and a few timed steps."""

import copy
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from dipkernels.base.checks import checked
from dipkernels.base.devices import is_present, parse_device
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.fits import fit
from dipkernels.fitting.preparation import check_runs, make_monitors
from dipkernels.fitting.settings import FitSettings
from dipkernels.kernels.ntk import NTK
from dipkernels.planning.plans import Plan
from dipkernels.planning.rehearsal import Needs, rehearse_fit, rehearse_kernel
from dipkernels.priors.memory import DEFAULT_BUDGET, available_memory
from dipkernels.priors.prior import ImagePrior
from dipkernels.stopping import Monitor, Rule, make_rule
from dipkernels.tasks import Task, denoise

TIMED_STEPS = 4  # the first of them is a warm-up
TIMED_SEARCHES = 12  # the first line searches of L-BFGS are long; the second half is counted
# Of one product, in steps of Adam: benchmarks/ntk.py found 1.11 to 1.43 over five families at 64x64
# (4/3 by operations), with no trend in their shares of parameters and activations.
PRODUCT_STEPS = 1.25
# Tracing a network to linearise it takes a time of its own.
SECONDS_PER_MODULE = 0.02
RATE_PRODUCTS = 40  # at most, by which gradient descent finds its step


@checked
def plan(
    prior: ImagePrior,
    task: Task | Sequence[Task] | None = None,
    *,
    iterations: int | None = None,
    seeds: int = 1,
    matvecs: int = 0,
    columns: int = 1,
    memory_budget: int = DEFAULT_BUDGET,
    monitors: Sequence[Monitor | str] = (),
    stop: Rule | str | None = None,
    checkpoint: bool = False,
    device: str | torch.device | None = None,
    budget: int | float | None = None,
    timed: bool = True,
    time_products: bool = False,
    **options: Any,
) -> Plan:
    """Say what a fit and products with the tangent kernel will take, before they run.

    Memory is found by running a few iterations, or products, with tensors that hold no numbers, so
    that any size can be planned. If it's there, a few real steps are timed on the prior's device.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    task : Task or sequence of Task, optional
        What is fitted; without, nothing is.
    iterations : int, optional
        Of the fit; by default 1000, as of `dipkernels.fit`.
    seeds : int
        Initialisations of each task, fitted together.
    matvecs : int
        With the kernel, by Lanczos, which keeps two vectors of each.
    columns : int
        Products that are asked for together: the number of start vectors.
    memory_budget : int
        Of `dipkernels.NTK`.
    monitors, stop
        As of `dipkernels.fit`.
    checkpoint : bool
        Whether the fit has one.
    device : str or torch.device, optional
        That will compute, by default the prior's. For a ``cuda`` that this machine lacks there
        are no seconds, and a budget is needed.
    budget : int or float, optional
        Bytes that may be taken; by default what is free on the device now.
    timed : bool
        Whether to time steps, if the memory is there.
    time_products : bool
        Linearise the network and time two products, in place of an estimate from steps.
    **options
        All others of `dipkernels.fit` that change its cost: ``optimiser``, ``backtracking``,
        ``precision``, ``channels_last``, ``total_variation_weight`` and so on.

    Returns
    -------
    Plan
        ``print`` shows it as a table; `Plan.require` raises if it doesn't fit.

    Raises
    ------
    InvalidInputError
        If there's nothing to plan, an option doesn't exist or has no effect here, the fit's
        options are invalid, or a device that isn't here comes without a budget.
    DeviceError
        If the device is neither a CPU nor of CUDA.

    Notes
    -----
    Costs the rehearsal, one to five seconds for a deep network, a drawing of the parameters, four
    iterations (12 of L-BFGS), and with `time_products` the linearisation and two products. Memory
    is beyond what the process has, libraries loaded; on a CPU it counts what glibc's allocator
    holds on to (see `dipkernels.planning.ledger`), on a GPU the tensors, without what cuDNN takes
    besides. Seconds are of the machine as it is now. ``compile`` is left out of both. A network
    that can't run without numbers is planned by a rule of thumb, and a note says so.

    Examples
    --------
    >>> import torch
    >>> from dipkernels import networks, tasks
    >>> prior = networks.create("deep-decoder", image_size=(16, 24), width=8)
    >>> task = tasks.denoise(torch.full((3, 16, 24), 0.5))
    >>> planned = plan(prior, task, iterations=500, seeds=4, timed=False)
    >>> planned.fits, planned.runs, planned.matvecs
    (True, 4, 0)
    """
    tasks = [] if task is None else [task] if isinstance(task, Task) else list(task)
    of_fit = {
        "iterations": iterations is not None,
        "seeds": seeds != 1,
        "monitors": bool(monitors),
        "stop": stop is not None,
        "checkpoint": checkpoint,
        **dict.fromkeys(options, True),
    }
    if not tasks and matvecs < 1:
        raise InvalidInputError("there is nothing to plan: give a task to fit, or products")
    _require_effect(of_fit, bool(tasks), "a task to fit")
    of_kernel = {"columns": columns != 1, "time_products": time_products}
    _require_effect(of_kernel, matvecs > 0, "matvecs")
    settings = _settings(iterations, options)
    target = prior.device if device is None else parse_device(device)
    absent = not (device is None or is_present(target))
    if absent and budget is None:
        raise InvalidInputError(
            f"this machine has no {target}: say with budget= how many bytes may be taken there"
        )
    if absent and time_products:
        raise InvalidInputError(
            f"time_products has no effect: this machine has no {target} to time them on"
        )
    if device is not None:
        prior = prior.to(device="cpu" if absent else target)
    tasks = [each.to(device=prior.device, dtype=prior.dtype) for each in tasks]
    watching = make_monitors(monitors, None if stop is None else make_rule(stop))
    descends = settings.optimiser in ("sgd", "gradient-descent")
    searches = bool(tasks) and descends and settings.learning_rate is None
    needs: dict[str, Needs] = {}
    if tasks:
        # tf32 is refused where it has no effect: on the prior's device, not on one that isn't here
        ours = replace(settings, precision="float") if absent else settings
        check_runs(prior, tasks, list(range(seeds)), ours)
        needs["fit"] = rehearse_fit(
            prior,
            tasks,
            seeds,
            settings,
            watching,
            stops=stop is not None,
            checkpoint=checkpoint,
            device=target,
        )
    if matvecs or searches:
        held = max(matvecs, RATE_PRODUCTS * searches)
        needs["kernel"] = rehearse_kernel(
            prior, held, columns, memory_budget=memory_budget, device=target
        )
    spent = matvecs + RATE_PRODUCTS * searches * seeds
    planned = Plan(
        prior=repr(prior),
        shape=prior.shape,
        parameters=prior.parameter_count,
        device=str(target),
        runs=len(tasks) * seeds,
        iterations=settings.iterations if tasks else 0,
        matvecs=spent,
        step_seconds=math.nan,
        matvec_seconds=math.nan,
        seconds=math.nan,
        parts={name: each.parts for name, each in needs.items()},
        budget=available_memory(target) if budget is None else int(budget),
        notes=_notes(needs, settings, stop, searches=searches, absent=target if absent else None),
    )
    if absent or not (timed and planned.fits):
        return planned
    return _timed(planned, prior, tasks, seeds, settings, watching, time_products=time_products)


def _require_effect(options: dict[str, bool], present: bool, what: str) -> None:
    idle = [name for name, given in options.items() if given]
    if idle and not present:
        raise InvalidInputError(f"{', '.join(idle)} have no effect without {what}")


def _settings(iterations: int | None, options: dict[str, Any]) -> FitSettings:
    known = [name for name in FitSettings.__dataclass_fields__ if name != "iterations"]
    if unknown := sorted(options.keys() - set(known)):
        raise InvalidInputError(
            f"plan has no option {', '.join(unknown)}; of a fit's it takes: {', '.join(known)}"
        )
    counted: dict[str, Any] = {} if iterations is None else {"iterations": iterations}
    return FitSettings(**options, **counted)


def _notes(
    needs: dict[str, Needs],
    settings: FitSettings,
    stop: object,
    *,
    searches: bool,
    absent: torch.device | None,
) -> tuple[str, ...]:
    guessed = not all(each.rehearsed for each in needs.values())
    notes = {
        f"seconds can't be timed: this machine has no {absent}": absent is not None,
        "memory by a rule of thumb: the network can't run without numbers": guessed,
        "without what torch.compile takes and saves": settings.compile is not None,
        "a step of L-BFGS may take up to 25 evaluations": settings.optimiser == "l-bfgs",
        "products include at most 40 a seed, to find the learning rate": searches,
        "seconds if the rule doesn't stop it": stop is not None,
    }
    return tuple(note for note, holds in notes.items() if holds)


def _timed(
    planned: Plan,
    prior: ImagePrior,
    tasks: list[Task],
    seeds: int,
    settings: FitSettings,
    watching: Sequence[Monitor],
    *,
    time_products: bool,
) -> Plan:
    drawing = _seconds(prior, lambda: prior.init(0))
    step = math.nan
    seconds = 0.0
    if tasks:
        step = _step_seconds(prior, tasks, seeds, settings, watching)
        seconds += seeds * drawing + settings.iterations * step
    product = math.nan
    if planned.matvecs:
        tracing, product = _kernel_seconds(prior, drawing, measured=time_products)
        # A search of the learning rate linearises the network for every seed.
        times = max(1, planned.matvecs // RATE_PRODUCTS if seeds > 1 else 1)
        seconds += tracing * min(times, seeds) + planned.matvecs * product
    return replace(planned, step_seconds=step, matvec_seconds=product, seconds=seconds)


def _seconds(prior: ImagePrior, job: Callable[[], object]) -> float:
    start = _now(prior)
    job()
    return _now(prior) - start


def _now(prior: ImagePrior) -> float:
    if prior.device.type == "cuda":
        torch.cuda.synchronize(prior.device)
    return time.perf_counter()


def _step_seconds(
    prior: ImagePrior,
    tasks: list[Task],
    seeds: int,
    settings: FitSettings,
    watching: Sequence[Monitor] = (),
) -> float:
    # The rate changes no step's time.
    moments: list[float] = []
    searches = settings.optimiser == "l-bfgs"
    rate = 1e-6 if settings.learning_rate is None and not searches else settings.learning_rate
    steps = TIMED_SEARCHES if searches else TIMED_STEPS
    chosen = asdict(settings) | {"iterations": steps, "compile": None, "learning_rate": rate}
    fit(
        prior,
        tasks,
        seed=list(range(seeds)),
        monitors=copy.deepcopy(list(watching)),
        callback=lambda *_: moments.append(_now(prior)),
        **chosen,
    )
    if searches:
        return (moments[-1] - moments[steps // 2]) / (steps - steps // 2)
    # The median: the machine may have other things to do.
    return statistics.median(b - a for a, b in itertools.pairwise(moments[1:]))


# Of the linearisation, and of a product.
def _kernel_seconds(prior: ImagePrior, drawing: float, *, measured: bool) -> tuple[float, float]:
    if measured:
        kernels: list[NTK] = []
        tracing = _seconds(prior, lambda: kernels.append(NTK(prior, prior.init(0))))
        probe = kernels[0].rademacher(1, 0)
        folding, product = (_seconds(prior, lambda: kernels[0] @ probe) for _ in range(2))
        return tracing + folding - product, product
    task = denoise(torch.full(prior.shape, 0.5, device=prior.device, dtype=prior.dtype))
    step = _step_seconds(prior, [task], 1, FitSettings())
    tracing = drawing + SECONDS_PER_MODULE * prior.module_count
    return tracing, PRODUCT_STEPS * step
