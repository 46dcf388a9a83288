"""The ways to draws of the image, and what each takes: one table."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from dipkernels.errors import InvalidInputError
from dipkernels.sampling.settings import ChainSettings
from dipkernels.stages.job import STAGE, Job

if TYPE_CHECKING:
    import xarray as xr

    from dipkernels.planning import Plan
    from dipkernels.storage.runs import RunFolder

COUNTS = ("iterations", "burn_in", "thin", "chains")
INPUT_NOISE = 1 / 30  # of gp-dip and of averages, as published
PUBLISHED_BURN_IN, PUBLISHED_DRAWS = 0.35, 400  # of gp-dip: 7000 of 20000, each 50th
# What can be said of chains; the method and the seed are options of the command itself.
CHAINS = {each.name: each for each in fields(ChainSettings) if each.name not in ("method", "seed")}


@dataclass(frozen=True)
class Method:
    """One way to draws of the image."""

    words: str
    defaults: dict[str, Any]
    plan: Callable[[Job, bool], "Plan"]
    run: Callable[[Job, "RunFolder"], "xr.Dataset"]
    headline: Callable[["xr.Dataset"], str] | None = None


def _langevin_settings(job: Job) -> ChainSettings:
    if job.method == "psgld" and job.options["step_size"] is None:
        raise InvalidInputError(
            f"psgld needs {job.spell('step_size')}: the curvature in its metric isn't known before "
            "it runs. A parameter moves by about so much an iteration at first; try 1e-4, and less "
            "if chains diverge"
        )
    names = [name for name in CHAINS if name in job.options]
    settings = ChainSettings(method=job.method, seed=job.seed, **job.given(*names))
    return _with_draws(job, settings)


# Maps and calibration come last: what they need is asked for first.
def _with_draws(job: Job, settings: ChainSettings) -> ChainSettings:
    if settings.chains * settings.draws < 2:
        raise InvalidInputError(
            "these numbers leave one draw of one chain, and a map of the spread needs at least 2: "
            "give more {} or {}, or a smaller {} or {}".format(
                *map(job.spell, ("iterations", "chains", "burn_in", "thin"))
            )
        )
    return settings


def _plan_langevin(job: Job, timed: bool) -> "Plan":
    from dipkernels.sampling.plan import plan_chains

    return plan_chains(job.posterior, _langevin_settings(job), timed=timed)


def _run_langevin(job: Job, folder: "RunFolder") -> "xr.Dataset":
    from dipkernels import sampling

    return sampling.sample(
        job.posterior,
        _langevin_settings(job),
        start=job.start(folder),
        checkpoint=folder.checkpoint(STAGE),
        progress=job.progress,
    )


def gp_dip_counts(job: Job) -> dict[str, Any]:
    """Count iterations, burnt-in and kept: unless they're given, by the published shares."""
    iterations = job.options["iterations"]
    burn_in, thin = job.options["burn_in"], job.options["thin"]
    return {
        "iterations": iterations,
        "burn_in": int(PUBLISHED_BURN_IN * iterations) if burn_in is None else burn_in,
        "thin": max(1, iterations // PUBLISHED_DRAWS) if thin is None else thin,
        "chains": job.options["chains"],
    }


def _plan_fits(job: Job, timed: bool, runs: int, **options: Any) -> "Plan":
    from dipkernels.planning import plan

    return plan(
        job.prior,
        job.task,
        iterations=job.options["iterations"],
        seeds=runs,
        checkpoint=True,
        timed=timed,
        **options,
        **job.given("learning_rate"),
    )


def _plan_iterates(job: Job, timed: bool, counts: dict[str, Any], **options: Any) -> "Plan":
    from dipkernels.sampling.plan import with_draws

    settings = _with_draws(job, ChainSettings(seed=job.seed, **counts))
    planned = _plan_fits(job, timed, settings.chains, input_noise=INPUT_NOISE, **options)
    return with_draws(planned, job.task, settings)


def _plan_gp_dip(job: Job, timed: bool) -> "Plan":
    return _plan_iterates(job, timed, gp_dip_counts(job), backtracking=5.0, weight_decay=5e-8)


def _plan_averaged(job: Job, timed: bool) -> "Plan":
    return _plan_iterates(job, timed, job.given(*COUNTS))


def _require_two(job: Job, name: str) -> None:
    if (given := job.options[name]) < 2:
        raise InvalidInputError(f"{job.spell(name)} must be at least 2, got {given}")


def _plan_dropout(job: Job, timed: bool) -> "Plan":
    if not 0 < job.options["rate"] < 1:
        raise InvalidInputError(f"{job.spell('rate')} must be in (0, 1), got {job.options['rate']}")
    _require_two(job, "draws")
    return _plan_fits(job, timed, job.options["chains"])


def _plan_ensemble(job: Job, timed: bool) -> "Plan":
    _require_two(job, "members")
    return _plan_fits(job, timed, job.options["members"])


def _run_fits(
    function: str, *names: str, counts: Callable[[Job], dict[str, Any]] = lambda job: {}
) -> Callable[[Job, "RunFolder"], "xr.Dataset"]:
    """Make what calls a function of `dipkernels.sampling` with these options of a job."""

    def run(job: Job, folder: "RunFolder") -> "xr.Dataset":
        from dipkernels import sampling

        found: xr.Dataset = getattr(sampling, function)(
            job.prior,
            job.task,
            seed=job.seed,
            checkpoint=folder.checkpoint(STAGE),
            progress=job.progress,
            **job.given(*names),
            **counts(job),
        )
        return found

    return run


def _of_iterates(result: "xr.Dataset") -> str:
    return (
        f"Not a posterior: {result.sizes['draw']} iterates of each of {result.sizes['chain']} "
        "fit(s). Their mean is what they are for; their spread is that of the optimiser, and "
        "changes as the fit learns the noise."
    )


def _of_dropout(result: "xr.Dataset") -> str:
    return (
        f"Not a posterior: {result.sizes['draw']} draws of dropped channels from each of "
        f"{result.sizes['chain']} fit(s). Their spread follows the rate, which no measurement sets."
    )


def _plan_linearised(job: Job, timed: bool) -> "Plan":
    from dipkernels.sampling.plan import plan_linearised

    _require_two(job, "draws")
    return plan_linearised(job.posterior, draws=job.options["draws"], timed=timed)


def _run_linearised(job: Job, folder: "RunFolder") -> "xr.Dataset":
    from dipkernels import sampling
    from dipkernels.base.seeds import derive

    start = job.start(folder)
    if start is None:
        start = job.prior.init(derive("chain-0", job.seed))
    device, dtype = job.prior.device, job.prior.dtype
    return sampling.linearised(
        job.posterior,
        {key: value.to(device, dtype) for key, value in start.items()},
        draws=job.options["draws"],
        seed=job.seed,
        tolerance=TOLERANCE,
        progress=job.progress,
    )


TOLERANCE = 1e-3  # of the solves of the linearised posterior


def _of_ensemble(result: "xr.Dataset") -> str:
    return (
        f"Not a posterior: {result.sizes['draw']} fits from different initialisations. Their "
        "spread is that of what the initialisation leaves open; no density is known that they "
        "sample."
    )


def _of_linearised(result: "xr.Dataset") -> str:
    error = float(result.attrs["error"])
    if error <= TOLERANCE:
        return (
            f"{result.sizes['draw']} independent draws, exact but for a relative error of at most "
            f"{error:.1g} in the solves: there are no chains that would have to converge."
        )
    return (
        f"NOT SOLVED: after {result.attrs['iterations']} iterations of conjugate gradients the "
        f"relative error is {error:.2g}, not {TOLERANCE:g}; directions of small eigenvalue are "
        "still as in the prior."
    )


_TARGET = {"temperature": 1.0, "weight_prior": "initialisation", "likelihood_sigma": None}
_FIT_FIRST = {"start": "fit", "start_iterations": 500, "learning_rate": None}
_LANGEVIN: dict[str, Any] = {
    **{name: each.default for name, each in CHAINS.items() if name != "friction"},
    "iterations": 5000,
    "chains": 2,
    **_TARGET,
    **_FIT_FIRST,
}

# A further method is one entry here; an option that no other has, one of the command's table.
METHODS: dict[str, Method] = {
    "sgld": Method(
        "Langevin dynamics along the whole gradient, unadjusted: it samples the target up to a "
        "term of the order of the step.",
        _LANGEVIN,
        _plan_langevin,
        _run_langevin,
    ),
    "psgld": Method(
        "Langevin dynamics in a diagonal metric that moves during burn-in only.",
        _LANGEVIN,
        _plan_langevin,
        _run_langevin,
    ),
    "sghmc": Method(
        "Langevin dynamics with a momentum, unadjusted.",
        _LANGEVIN | {"friction": None},
        _plan_langevin,
        _run_langevin,
    ),
    "gp-dip": Method(
        "What Cheng et al. 2019 ran: Adam, and noise of a constant deviation on the kernels after "
        "each step. No density is known that this would sample.",
        {
            "iterations": 20000,
            "burn_in": None,
            "thin": None,
            "chains": 2,
            "learning_rate": None,
        },
        _plan_gp_dip,
        _run_fits("gp_dip", "learning_rate", counts=gp_dip_counts),
    ),
    "averaged": Method(
        "Adam with noise on the code, stopped: its iterates after burn-in are the draws, their "
        "mean the average.",
        {"iterations": 3000, "burn_in": None, "thin": None, "chains": 2, "learning_rate": None},
        _plan_averaged,
        _run_fits("averaged", *COUNTS, "learning_rate"),
        _of_iterates,
    ),
    "mc-dropout": Method(
        "A fit with dropout in front of every layer, and draws that go on dropping.",
        {"rate": 0.1, "iterations": 3000, "draws": 100, "chains": 2, "learning_rate": None},
        _plan_dropout,
        _run_fits("mc_dropout", "rate", "iterations", "draws", "chains", "learning_rate"),
        _of_dropout,
    ),
    "ensemble": Method(
        "Fits with Adam from several initialisations (a deep ensemble); their last images are the "
        "draws.",
        {"iterations": 1000, "members": 5, "learning_rate": None},
        _plan_ensemble,
        _run_fits("deep_ensemble", "members", "iterations", "learning_rate"),
        _of_ensemble,
    ),
    "linearised": Method(
        "The network linearised at the start: a Gaussian process with its tangent kernel, whose "
        "posterior is drawn from by Matheron's rule.",
        {"draws": 100, **_TARGET, **_FIT_FIRST},
        _plan_linearised,
        _run_linearised,
        _of_linearised,
    ),
}


def resolve(
    method: str, typed: dict[str, Any], spell: Callable[[str], str] = str
) -> dict[str, Any]:
    """Fill in a method's defaults, and refuse options that have no effect on it."""
    if method not in METHODS:
        raise InvalidInputError(
            f"{spell('method')} must be one of {', '.join(METHODS)}, got '{method}'"
        )
    defaults = METHODS[method].defaults
    given = {name: value for name, value in typed.items() if value is not None}
    for name in given:
        if name not in defaults:
            takers = [other for other, each in METHODS.items() if name in each.defaults]
            raise InvalidInputError(
                f"{spell(name)} has no effect on method '{method}': leave it out, or choose one "
                f"that takes it ({', '.join(takers)})"
            )
    options = defaults | given
    if "start" in options:
        _require_start(options, given, spell)
    return options


def _require_start(
    options: dict[str, Any], given: dict[str, Any], spell: Callable[[str], str]
) -> None:
    if options["start"] not in ("fit", "initialisation"):
        raise InvalidInputError(
            f"{spell('start')} must be fit or initialisation, got '{options['start']}'"
        )
    if options["start"] == "fit":
        return
    for name in ("start_iterations", "learning_rate"):
        if name in given:
            raise InvalidInputError(
                f"{spell(name)} has no effect with {spell('start')} initialisation: nothing is "
                "fitted"
            )
        options[name] = None
