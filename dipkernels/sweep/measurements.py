"""What a run can compute, by name: a fit, a score, a kernel, a posterior, or yours.

A measurement is a function of a prior and a task. Its options are what a plan may say of it.
"""

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import xarray as xr

from dipkernels.base.checks import as_annotated
from dipkernels.base.words import suggest
from dipkernels.errors import InvalidInputError, UnknownNameError
from dipkernels.fitting.settings import FitSettings
from dipkernels.priors.prior import ImagePrior
from dipkernels.specs.task import Option
from dipkernels.stopping import make_rule
from dipkernels.tasks import Task

Value = float | int | str | bool
# What the table says of every run; a measurement's own values stand beside.
COLUMNS = ("prior", "task", "image", "size", "seed", "measure", "seconds", "device")


@dataclass(frozen=True)
class Measured:
    """What a measurement gives.

    Attributes
    ----------
    values : mapping of str to float, int, str or bool
        A row of the table.
    dataset : xarray.Dataset or None
        All there is: curves, images.
    """

    values: Mapping[str, Value]
    dataset: xr.Dataset | None = None


@dataclass(frozen=True)
class Measurement:
    """A registered measurement."""

    name: str
    function: Callable[..., Any]
    options: Mapping[str, Option]
    check: Callable[[ImagePrior, Task, dict[str, Any]], None] | None = None

    def value(self, option: str, given: Any) -> Any:
        """Check one value of an option by itself."""
        kept = as_annotated(option, given, self.options[option].annotation)
        if self.name == "fit" and option in FitSettings.__dataclass_fields__:
            FitSettings(**{option: kept, **_COMPANIONS.get(option, {})})
        if self.name == "fit" and option == "stop" and kept is not None:
            make_rule(kept)
        return kept


_MEASUREMENTS: dict[str, Measurement] = {}
# Some settings of a fit mean nothing without another.
_COMPANIONS: dict[str, dict[str, Any]] = {
    "momentum": {"optimiser": "sgd"},
    "total_variation": {"total_variation_weight": 1.0},
}


def register_measurement(
    name: str,
    function: Callable[..., Any],
    *,
    check: Callable[[ImagePrior, Task, dict[str, Any]], None] | None = None,
) -> None:
    """Add a measurement to those that a plan may ask for.

    Workers must know it, too: register it in a module that the plan names under ``imports``.

    Parameters
    ----------
    name : str
        A new name.
    function : callable
        ``function(prior, task, *, seed, ...)``; further keyword-only parameters, with annotations
        and defaults, are its options. Returns a `Measured`, a mapping of plain values, or a
        dataset (then its numbers without dimensions are the row).
    check : callable, optional
        As of `Measurement`.

    Raises
    ------
    InvalidInputError
        If the name is taken by another function, or the function doesn't take these arguments.

    Examples
    --------
    >>> def brightness(prior, task, *, seed: int, scale: float = 1.0):
    ...     return {"brightness": scale * float(prior.image(prior.init(seed)).mean())}
    >>> register_measurement("brightness", brightness)
    >>> "brightness" in measurement_names()
    True
    """
    known = _MEASUREMENTS.get(name)
    if known is not None and _source(known.function) != _source(function):
        raise InvalidInputError(f"there is a measurement '{name}' already: choose another name")
    parameters = list(inspect.signature(function).parameters.values())
    options = {
        p.name: Option(p.annotation, p.default, "")
        for p in parameters[2:]
        if p.kind is p.KEYWORD_ONLY
    }
    if len(parameters) - len(options) != 2 or "seed" not in options:
        raise InvalidInputError(
            f"a measurement is a function (prior, task, *, seed, ...), got {name}"
            f"{inspect.signature(function)}: options come after the star"
        )
    del options["seed"]
    without = [key for key, o in options.items() if o.default is inspect.Parameter.empty]
    if without:
        raise InvalidInputError(f"options of '{name}' need defaults: {', '.join(without)}")
    _MEASUREMENTS[name] = Measurement(name, function, options, check)


def measurement_names() -> list[str]:
    """List the measurements that are registered.

    Returns
    -------
    list of str
        In the order of registration.
    """
    return list(_MEASUREMENTS)


def measurement(name: str) -> Measurement:
    """Look up a measurement."""
    if name not in _MEASUREMENTS:
        raise UnknownNameError(f"unknown measurement '{name}': {suggest(name, _MEASUREMENTS)}")
    return _MEASUREMENTS[name]


def as_measured(name: str, result: Any) -> Measured:
    """Read what a measurement returned."""
    values: Mapping[Any, Any]
    if isinstance(result, Measured):
        values, dataset = result.values, result.dataset
    elif isinstance(result, xr.Dataset):
        values = {key: each for key, each in result.data_vars.items() if each.ndim == 0}
        dataset = result
    elif isinstance(result, Mapping):
        values, dataset = result, None
    else:
        raise InvalidInputError(
            f"measurement '{name}' must return a Measured, a mapping or a dataset, got "
            f"{type(result).__name__}"
        )
    plain: dict[str, Value] = {}
    for key, value in values.items():
        if key in COLUMNS or str(key).startswith(("prior.", "task.", "measure.")):
            raise InvalidInputError(
                f"measurement '{name}' gave '{key}', which in the table says what was run: give it "
                "another name"
            )
        with contextlib.suppress(ValueError, RuntimeError):  # of arrays with several entries
            # numbers of NumPy, torch and xarray
            plain[str(key)] = value.item() if hasattr(value, "item") else value
        if not isinstance(plain.get(str(key)), float | int | str):
            raise InvalidInputError(
                f"measurement '{name}' gave {key} as {type(value).__name__}: a row of the table "
                "holds numbers and words; put the rest into a dataset"
            )
    return Measured(plain, dataset)


def _source(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def _fit(
    prior: ImagePrior, task: Task, *, seed: int, stop: str | None = None, **settings: Any
) -> Measured:
    from dipkernels import fitting

    result = fitting.fit(prior, task, seed=seed, stop=stop, **settings)
    last = result.isel(iteration=-1)
    values: dict[str, Value] = {
        "parameters": prior.parameter_count,
        "ended": str(result.status),
        "iterations": result.sizes["iteration"] - 1,
        "final_psnr_noisy": float(last.psnr_noisy),
    }
    if "psnr_clean" in result:
        scored = result[["psnr_clean", "psnr_average_clean"]].sel(region=result.score_region)
        values |= {
            "peak_psnr": float(result.peak_psnr),
            "peak_iteration": int(result.peak_iteration),
            "final_psnr": float(scored.psnr_clean[-1]),
            "average_peak_psnr": float(scored.psnr_average_clean.max()),
        }
        if stop is not None and int(result.chosen) >= 0:
            values["chosen_psnr"] = float(scored.psnr_clean[int(result.chosen)])
    if stop is not None:
        values |= {"chosen": int(result.chosen), "stopped": int(result.stopped)}
    return Measured(values, result)


def _check_fit(prior: ImagePrior, task: Task, options: dict[str, Any]) -> None:
    from dipkernels import fitting, networks
    from dipkernels.fitting.preparation import check_runs

    settings = {key: value for key, value in options.items() if key != "stop"}
    check_runs(prior, [task], [0], FitSettings(**settings))
    if options["stop"] is None or task.guide is not None:
        return
    # A rule says what it lacks when it is asked: a fit of the smallest network asks it.
    channels, *size = task.shape
    small = networks.create("deep-decoder", image_size=tuple(size), channels=channels, width=1)
    unit = task if task.peak == 1.0 else task.in_range(1.0)
    fitting.fit(small, unit, iterations=1, learning_rate=1e-6, stop=options["stop"])


def _score(
    prior: ImagePrior,
    task: Task,
    *,
    seed: int,
    method: str = "auto",
    steps: int | None = None,
    probes: int | None = None,
) -> Measured:
    from dipkernels import theory

    result = theory.score(prior, task, seed=seed, method=method, steps=steps, probes=probes)
    one = result.isel(image=0, seed=0)
    values: dict[str, Value] = {
        "parameters": prior.parameter_count,
        "score": float(one.psnr),
        "score_lower": float(one.psnr_lower),
        "score_upper": float(one.psnr_upper),
        "score_resolved": bool(one.resolved),
        "freedom": float(one.freedom),
        "products": int(one.products),
    }
    return Measured(values, result)


def _check_score(prior: ImagePrior, task: Task, options: dict[str, Any]) -> None:
    from dipkernels.theory.scores import check_score

    check_score(prior, [task], [0], **options)


def _kernel(
    prior: ImagePrior, task: Task, *, seed: int, steps: int = 60, probes: int = 2
) -> Measured:
    from dipkernels import compare
    from dipkernels.kernels import NTK

    ntk = NTK(prior, prior.init(seed))
    spaces = compare.probe_spaces(ntk, probes, steps, seed=seed)
    result = compare.measure_kernel(ntk, spaces, seed=seed)
    numbers = ("trace", "trace_standard_error", "largest_eigenvalue", "half_power_frequency")
    values: dict[str, Value] = {key: float(result.attrs[key]) for key in numbers}
    values |= {"parameters": prior.parameter_count, "products": int(result.products)}
    return Measured(values, result)


def _check_kernel(prior: ImagePrior, task: Task, options: dict[str, Any]) -> None:
    if min(options["steps"], options["probes"]) < 2:
        raise InvalidInputError(
            f"steps and probes must be at least 2, got {options['steps']}, {options['probes']}"
        )


def _posterior(
    prior: ImagePrior,
    task: Task,
    *,
    seed: int,
    method: str = "sgld",
    iterations: int = 10000,
    burn_in: int | None = None,
    thin: int | None = None,
    step_size: float | None = None,
    chains: int = 4,
    temperature: float = 1.0,
) -> Measured:
    from dipkernels import sampling

    target = sampling.Posterior(prior, task, temperature=temperature)
    result = sampling.sample(
        target,
        method=method,
        iterations=iterations,
        burn_in=burn_in,
        thin=thin,
        step_size=step_size,
        chains=chains,
        seed=seed,
    )
    verdict = sampling.verdict(sampling.diagnose(result))
    values: dict[str, Value] = {
        "parameters": prior.parameter_count,
        "converged": verdict.converged,
        "reasons": "; ".join(verdict.reasons),
    }
    if "psnr_mean" in result:
        values["mean_psnr"] = float(result.psnr_mean.isel(iteration=-1).mean())
    return Measured(values, result)


def _check_posterior(prior: ImagePrior, task: Task, options: dict[str, Any]) -> None:
    from dipkernels.sampling import ChainSettings
    from dipkernels.sampling.diagnostics import LEAST_DRAWS, require_arviz

    if not task.noise_sigma > 0:
        raise InvalidInputError(
            "a posterior needs noise in the task: the likelihood is a density only with noise; "
            "give noise_sigma"
        )
    require_arviz()
    settings = {key: value for key, value in options.items() if key != "temperature"}
    # Said now: the verdict comes last, and without it all chains would have run for nothing.
    if (draws := ChainSettings(**settings).draws) < LEAST_DRAWS:
        raise InvalidInputError(
            f"whether chains converged can't be told from {draws} draws of each: at least "
            f"{LEAST_DRAWS} are needed; give more iterations, or a smaller burn_in or thin"
        )
    if not 0 < options["temperature"] < float("inf"):
        raise InvalidInputError(f"temperature must be positive, got {options['temperature']}")


register_measurement("score", _score, check=_check_score)
register_measurement("kernel", _kernel, check=_check_kernel)
register_measurement("posterior", _posterior, check=_check_posterior)
_FIT_OPTIONS = {
    "stop": Option(str | None, None, "Rule that ends the fit."),
    **{
        each.name: Option(each.type, each.default, each.metadata["help"])
        for each in fields(FitSettings)
    },
}
_MEASUREMENTS = {"fit": Measurement("fit", _fit, _FIT_OPTIONS, _check_fit), **_MEASUREMENTS}
