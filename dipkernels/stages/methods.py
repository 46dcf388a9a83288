"""The ways to draws of the image: what each takes, what it will cost, and how it is run."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipkernels.errors import InvalidInputError
from dipkernels.sampling.settings import ChainSettings, require_step
from dipkernels.sampling.steps import SAMPLERS
from dipkernels.stages.job import Job

if TYPE_CHECKING:
    import xarray as xr

    from dipkernels.planning import Plan
    from dipkernels.priors.prior import Parameters

INPUT_NOISE = 1 / 30  # of gp-dip and of averages, as published
PUBLISHED_BURN_IN, PUBLISHED_DRAWS = 0.35, 400  # of gp-dip: 7000 of 20000, each 50th
TOLERANCE = 1e-3  # of the solves of the linearised posterior
# What can be said of chains; the method and the seed are options of the command itself.
CHAINS = {each.name: each for each in fields(ChainSettings) if each.name not in ("method", "seed")}


@dataclass(frozen=True)
class Method:
    """One way to draws: a function of `dipkernels.sampling`, and the options that reach it."""

    words: str
    defaults: dict[str, Any]
    function: str = "sample"
    headline: Callable[["xr.Dataset"], str] | None = None
    fit: dict[str, Any] | None = None  # what its fits are planned with, where draws are iterates


def _says(text: str) -> Callable[["xr.Dataset"], str]:
    return lambda result: text.format(draw=result.sizes["draw"], chain=result.sizes["chain"])


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


_ON_TARGET: dict[str, Any] = {
    **{"temperature": 1.0, "weight_prior": "initialisation", "likelihood_sigma": None},
    **{"start": "fit", "start_iterations": 500, "learning_rate": None},
}
_LANGEVIN = {
    **{name: each.default for name, each in CHAINS.items() if name != "friction"},
    **_ON_TARGET,
    **{"start": "both", "start_iterations": 100},
}
_ITERATES = {"burn_in": None, "thin": None, "chains": 2, "learning_rate": None}
_OTHERS = {
    "gp-dip": Method(
        "The recipe of Cheng et al. 2019: Adam, with noise of constant standard deviation on the "
        "kernels after each step. It has no known target distribution.",
        {"iterations": 20000, **_ITERATES},
        "gp_dip",
        fit={"input_noise": INPUT_NOISE, "backtracking": 5.0, "weight_decay": 5e-8},
    ),
    "averaged": Method(
        "Adam with input noise, stopped early: the iterates after burn-in are the draws, and their "
        "mean is the average.",
        {"iterations": 3000, **_ITERATES},
        "averaged",
        _says(
            "Not a posterior: {draw} iterates of each of {chain} fit(s). Use their mean; their "
            "spread comes from the optimiser, and changes as the fit learns the noise."
        ),
        fit={"input_noise": INPUT_NOISE},
    ),
    "mc-dropout": Method(
        "A fit with dropout before every layer; draws keep dropout switched on.",
        {"rate": 0.1, "iterations": 3000, "draws": 100, "chains": 2, "learning_rate": None},
        "mc_dropout",
        _says(
            "Not a posterior: {draw} draws of dropped channels from each of {chain} fit(s). Their "
            "spread depends on the dropout rate, which the measurement does not determine."
        ),
    ),
    "ensemble": Method(
        "Fits with Adam from several initialisations (a deep ensemble); their last images are the "
        "draws.",
        {"iterations": 1000, "members": 5, "learning_rate": None},
        "deep_ensemble",
        _says(
            "Not a posterior: {draw} fits from different initialisations. Their spread shows the "
            "effect of the initialisation; they have no known target distribution."
        ),
    ),
    "linearised": Method(
        "The network linearised at the start: a Gaussian process with its tangent kernel, whose "
        "posterior is drawn from by Matheron's rule.",
        {"draws": 100, **_ON_TARGET},
        "linearised",
        _of_linearised,
    ),
}


def known_methods() -> dict[str, Method]:
    """List all ways to draws by name, samplers first."""
    chains = {
        name: Method(each.words, _LANGEVIN | ({"friction": None} if each.takes_friction else {}))
        for name, each in SAMPLERS.items()
    }
    return chains | _OTHERS


def resolve(
    method: str, typed: dict[str, Any], spell: Callable[[str], str] = str
) -> dict[str, Any]:
    """Fill in a method's defaults; refuse options out of range or without effect on it."""
    known = known_methods()
    if method not in known:
        raise InvalidInputError(
            f"{spell('method')} must be one of {', '.join(known)}, got '{method}'"
        )
    defaults = known[method].defaults
    given = {name: value for name, value in typed.items() if value is not None}
    for name in given:
        if name not in defaults:
            takers = [other for other, each in known.items() if name in each.defaults]
            raise InvalidInputError(
                f"{spell(name)} has no effect on method '{method}': leave it out, or choose one "
                f"that takes it ({', '.join(takers)})"
            )
    options = defaults | given
    for name in ("draws", "members"):
        if options.get(name, 2) < 2:
            raise InvalidInputError(f"{spell(name)} must be at least 2, got {options[name]}")
    if not 0 < options.get("rate", 0.5) < 1:
        raise InvalidInputError(f"{spell('rate')} must be in (0, 1), got {options['rate']}")
    if method in SAMPLERS:
        require_step(method, options["step_size"], spell("step_size"))
    if "start" in options:
        _require_start(options, given, spell)
    return options


def _require_start(
    options: dict[str, Any], given: dict[str, Any], spell: Callable[[str], str]
) -> None:
    known = ("both", "fit", "initialisation") if "chains" in options else ("fit", "initialisation")
    if options["start"] not in known:
        raise InvalidInputError(
            f"{spell('start')} must be {', '.join(known[:-1])} or {known[-1]}, got "
            f"'{options['start']}'"
        )
    if options["start"] != "initialisation":
        return
    for name in ("start_iterations", "learning_rate"):
        if name in given:
            raise InvalidInputError(
                f"{spell(name)} has no effect with {spell('start')} initialisation: nothing is "
                "fitted"
            )
        options[name] = None


def gp_dip_counts(job: Job) -> dict[str, Any]:
    """Count iterations, burnt-in and kept: unless they're given, by the published shares."""
    iterations = job.options["iterations"]
    published = {
        "iterations": iterations,
        "burn_in": int(PUBLISHED_BURN_IN * iterations),
        "thin": max(1, iterations // PUBLISHED_DRAWS),
    }
    return published | job.given("burn_in", "thin", "chains")


def _options(job: Job) -> dict[str, Any]:
    given = job.given(*job.options)
    return given | (gp_dip_counts(job) if job.method == "gp-dip" else {})


# Maps and calibration come last: what they need is asked for first.
def _chain_settings(job: Job, **named: Any) -> ChainSettings:
    counts = {name: value for name, value in _options(job).items() if name in CHAINS}
    settings = ChainSettings(seed=job.seed, **named, **counts)
    if settings.chains * settings.draws < 2:
        raise InvalidInputError(
            "these numbers leave one draw of one chain, and a map of the spread needs at least 2: "
            "give more {} or {}, or a smaller {} or {}".format(
                *map(job.spell, ("iterations", "chains", "burn_in", "thin"))
            )
        )
    return settings


def plan_draws(job: Job, *, timed: bool) -> "Plan":
    """Say what the draws will take, apart from fits to start from."""
    from dipkernels.sampling import plan as plans

    method = known_methods()[job.method]
    if method.function == "sample":
        settings = _chain_settings(job, method=job.method)
        return plans.plan_chains(job.posterior, settings, timed=timed)
    if method.function == "linearised":
        return plans.plan_linearised(job.posterior, draws=job.options["draws"], timed=timed)
    kept = None if method.fit is None else _chain_settings(job)
    runs = job.options.get("members") or job.options["chains"]
    planned = plan_fits(job, "iterations", runs, timed=timed, **(method.fit or {}))
    return planned if kept is None else plans.with_draws(planned, job.task, kept)


def plan_fits(job: Job, iterations: str, runs: int, *, timed: bool, **options: Any) -> "Plan":
    """Say what fits take; the option of this name tells of how many iterations."""
    from dipkernels.planning import plan

    return plan(
        job.prior,
        job.task,
        iterations=job.options[iterations],
        seeds=runs,
        checkpoint=True,
        timed=timed,
        **options,
        **job.given("learning_rate"),
    )


def draw(job: Job, checkpoint: Path | None, start: "Parameters | None" = None) -> "xr.Dataset":
    """Make the draws, from a start if the method takes one."""
    from dipkernels import sampling

    function, shown = known_methods()[job.method].function, {"progress": job.progress}
    if function == "sample":
        settings = _chain_settings(job, method=job.method)
        return sampling.sample(job.posterior, settings, start=start, checkpoint=checkpoint, **shown)
    given = _options(job) | {"seed": job.seed} | shown
    if function == "linearised":
        own = {name: given[name] for name in ("draws", "seed", "progress")}
        return sampling.linearised(job.posterior, job.at(start), tolerance=TOLERANCE, **own)
    run: Callable[..., xr.Dataset] = getattr(sampling, function)
    return run(job.prior, job.task, checkpoint=checkpoint, **given)
