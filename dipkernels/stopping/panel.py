"""All stopping rules on one fit, each with its regret against the oracle."""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.spread import spread_note
from dipkernels.errors import InvalidInputError
from dipkernels.stopping.published import Oracle
from dipkernels.stopping.rules import (
    NotApplicableError,
    Rule,
    RuleLike,
    clean_psnr,
    make_rule,
    rule_names,
)

_LEADING = ("image", "seed")


@checked
def stopping_panel(
    result: xr.Dataset, rules: Sequence[RuleLike] | None = None, average: bool = False
) -> xr.Dataset:
    """Judge a fit by every stopping rule.

    Parameters
    ----------
    result : xarray.Dataset
        As `dipkernels.fit` returns, with all its iterations; it may have dimensions ``image`` and
        ``seed``, whose runs are judged one by one.
    rules : sequence of Rule, str or callable, optional
        Rules, their names, or functions (see `FunctionRule`). By default all that are registered.
    average : bool
        Return the running average of the outputs at the chosen iteration instead of the output;
        ``"oracle"`` then is that of the averages.

    Returns
    -------
    xarray.Dataset
        Over ``rule``, after ``image`` and ``seed`` if the result has them: ``chosen``, the
        iteration whose output is returned; ``stopped``, the one at which an online run would have
        ended (NaN if it would have gone on to the end); ``psnr`` to the clean image at ``chosen``
        in the score region, and ``regret``, how much less that is than the highest of the run,
        both in dB; ``value``, the rule's own score there; ``applicable``; ``reason``, why not. Over
        ``rule`` alone: ``needs_truth``. What isn't known is NaN.

    Raises
    ------
    InvalidInputError
        If the result isn't over every iteration from 0, two rules have one name, or a rule chooses
        an iteration that there isn't.

    Notes
    -----
    A run that diverged is judged by its finite losses. Cost: NumPy on the traces, no pass of a
    network.

    Examples
    --------
    >>> trace = xr.Dataset(
    ...     {"psnr_noisy": ("iteration", [10.0, 21.0]), "psnr_clean": ("iteration", [12.0, 11.0])},
    ...     attrs={"noise_sigma": 0.1},
    ... )
    >>> panel = stopping_panel(trace, ["discrepancy"])
    >>> panel.stopped.item(), panel.regret.item()
    (1.0, 1.0)
    """
    judges = _make_rules(rules, average)
    _check_iterations(result)
    leading = tuple(dim for dim in _LEADING if dim in result.dims)
    shape = (*(result.sizes[dim] for dim in leading), len(judges))
    numbers = {name: np.full(shape, np.nan) for name in _NUMBERS}
    applicable = np.zeros(shape, dtype=bool)
    reason = np.full(shape, "", dtype=object)
    for index, trace in single_runs(result):
        known = ("psnr_average_clean" if average else "psnr_clean") in trace
        curve = clean_psnr(trace, average=average) if known else None
        for place, rule in enumerate(judges):
            at = (*index, place)
            try:
                row = _judge(rule, trace, curve)
            except NotApplicableError as error:
                reason[at] = str(error)
                continue
            applicable[at] = True
            for name, number in row.items():
                numbers[name][at] = number
    over = (*leading, "rule")
    coordinates = {dim: result[dim].values for dim in leading if dim in result.coords}
    return xr.Dataset(
        {
            **{name: (over, numbers[name], attrs) for name, attrs in _NUMBERS.items()},
            "applicable": (over, applicable),
            "reason": (over, reason.astype(str)),
            "needs_truth": ("rule", np.array([rule.needs_truth for rule in judges])),
        },
        {**coordinates, "rule": [rule.name for rule in judges]},
        {"average": int(average), "iterations": result.sizes["iteration"] - 1},
    )


_NUMBERS = {
    "stopped": {"long_name": "iteration at which a run would have stopped"},
    "chosen": {"long_name": "iteration whose output is returned"},
    "psnr": {"units": "dB"},
    "regret": {"units": "dB", "long_name": "below the best iteration of the run"},
    "value": {"long_name": "score of the rule itself at the chosen iteration"},
}


def single_runs(result: xr.Dataset) -> Iterator[tuple[tuple[int, ...], xr.Dataset]]:
    """Take a result apart into its runs."""
    leading = [dim for dim in _LEADING if dim in result.dims]
    for index in np.ndindex(*(result.sizes[dim] for dim in leading)):
        trace = result.isel(dict(zip(leading, index, strict=True)))
        if "loss" in trace:
            bad = np.flatnonzero(~np.isfinite(trace["loss"].values))
            trace = trace.isel(iteration=slice(int(bad[0]))) if len(bad) else trace
        yield index, trace


@checked
def detections(result: xr.Dataset, rule: RuleLike) -> np.ndarray:
    """Say which runs should have stopped by now: what a running fit asks now and then.

    Parameters
    ----------
    result : xarray.Dataset
        The scalars recorded so far, as `dipkernels.fit` returns them.
    rule : Rule, str or callable
        A rule, its name, or a function.

    Returns
    -------
    ndarray, shape (images, seeds), each axis only if the result has it
        Iteration at which the rule fired, NaN where it hasn't yet. More iterations don't change
        what isn't NaN.

    Raises
    ------
    NotApplicableError
        If the traces lack what the rule needs, however long they get.
    InvalidInputError
        If the result isn't over every iteration from 0.
    """
    judge = make_rule(rule)
    _check_iterations(result)
    fired = np.full([result.sizes[dim] for dim in _LEADING if dim in result.dims], np.nan)
    for index, trace in single_runs(result):
        stopped = judge.detect(trace) if trace.sizes["iteration"] else None
        fired[index] = np.nan if stopped is None else stopped
    return fired


@checked
def format_panel(panel: xr.Dataset) -> str:
    """Lay out a panel as text.

    Parameters
    ----------
    panel : xarray.Dataset
        As `stopping_panel` makes it.

    Returns
    -------
    str
        A table for every image. With several seeds, a number is mean ± standard deviation over the
        seeds to which the rule is applicable (as a sample's, with n - 1), and ``(k of n)`` follows
        where it isn't for all. A star marks rules that know the clean image. The last line says
        over how many seeds numbers spread, or that they have none.
    """
    note = spread_note(panel.sizes.get("seed", 1))
    if "image" not in panel.dims:
        return f"{_table(panel)}\n\n{note}"
    labels = panel["image"].values if "image" in panel.coords else range(panel.sizes["image"])
    blocks = [f"image {label}\n{_table(panel.isel(image=i))}" for i, label in enumerate(labels)]
    return "\n\n".join([*blocks, note])


def _make_rules(rules: Sequence[RuleLike] | None, average: bool) -> list[Rule]:
    chosen = rule_names() if rules is None else rules
    judges = [Oracle(average) if rule == "oracle" else make_rule(rule) for rule in chosen]
    names = [rule.name for rule in judges]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInputError(
            f"more than one rule is named {', '.join(twice)}: give each one a name of its own"
        )
    return judges


# Rules count positions, which must be the iterations.
def _check_iterations(result: xr.Dataset) -> None:
    if "iteration" not in result.dims:
        raise InvalidInputError(
            f"stopping rules need traces over iteration, this result is over {tuple(result.dims)}"
        )
    if "iteration" in result.coords:
        given = result["iteration"].values
        if not np.array_equal(given, np.arange(len(given))):
            raise InvalidInputError(
                f"stopping rules need every iteration from 0, this result has {given[:3]} ... "
                f"{given[-1]}: don't select or thin it before"
            )


def _judge(rule: Rule, trace: xr.Dataset, curve: np.ndarray | None) -> dict[str, float]:
    if trace.sizes["iteration"] == 0:
        raise NotApplicableError("the run has no finite loss")
    decision = rule.decide(trace)
    last = trace.sizes["iteration"] - 1
    if not 0 <= decision.chosen <= last:
        raise InvalidInputError(
            f"rule '{rule.name}' chose iteration {decision.chosen} of a trace over 0 ... {last}"
        )
    row = {"chosen": float(decision.chosen), "value": decision.value}
    if decision.stopped is not None:
        row["stopped"] = float(decision.stopped)
    if curve is not None:
        best, here = np.nanmax(curve), curve[decision.chosen]
        row["psnr"] = float(here)
        # An exact output has an infinite PSNR, whose difference to itself isn't 0.
        row["regret"] = 0.0 if here == best else float(best - here)
    return row


PANEL_HEAD = ("rule", "stopped at", "chosen", "PSNR dB", "regret dB", "")
_PATTERNS = {"stopped": ".0f", "chosen": ".0f", "psnr": ".2f", "regret": ".2f"}


def _table(panel: xr.Dataset) -> str:
    rows = [PANEL_HEAD, *(panel_row(panel.isel(rule=i)) for i in range(panel.sizes["rule"]))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(PANEL_HEAD) - 1)]
    lines = []
    for name, *cells, note in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded, note]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def panel_row(rule: xr.Dataset) -> tuple[str, ...]:
    """Lay out one rule: name, stopped at, chosen, PSNR, regret, what else is to be said."""
    name = str(rule["rule"].item()) + ("*" if rule["needs_truth"].item() else "")
    applicable = np.atleast_1d(rule["applicable"].values)
    cells = [_cell(np.atleast_1d(rule[key].values), key) for key in _PATTERNS]
    reasons = [str(text) for text in np.atleast_1d(rule["reason"].values) if text]
    if applicable.all():
        note = ""
    elif applicable.any():
        note = f"({applicable.sum()} of {applicable.size}; else: {reasons[0]})"
    else:
        note = f"not applicable: {reasons[0]}"
    return (name, *cells, note)


def _cell(numbers: np.ndarray, key: str) -> str:
    pattern = _PATTERNS[key]
    known = numbers[~np.isnan(numbers)]
    if len(known) == 0:
        return "-"
    text = format(known.mean(), pattern)
    if len(numbers) == 1:
        return text
    deviation = format(known.std(ddof=1), pattern) if len(known) > 1 else "?"
    # How many seeds stopped at all is news; the other numbers are there wherever it is applicable.
    some = key == "stopped" and len(known) < len(numbers)
    return f"{text} ± {deviation}" + f" ({len(known)} of {len(numbers)})" * some
