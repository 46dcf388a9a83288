"""Rules against loops that watch a trace iteration by iteration, and where answers are known."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from dipkernels.errors import InvalidInputError, UnknownNameError
from dipkernels.stopping import (
    Calibration,
    Decision,
    FunctionRule,
    NotApplicableError,
    Rule,
    make_rule,
    register_rule,
    stopping_panel,
)
from dipkernels.stopping import rules as registry
from dipkernels.stopping.published import (
    BlurSharpnessRule,
    DeltaMSE,
    Discrepancy,
    HeldOut,
    Last,
    MovingVarianceRule,
    Oracle,
    WindowedVarianceRule,
)
from dipkernels.stopping.references import PseudoReferenceRule, TwoCopies
from dipkernels.stopping.twins import PseudoNoise, Sure


def trace_of(seed: int, length: int = 160) -> xr.Dataset:
    """A trace with everything that a fit may record, as random as its rules still let it stop."""
    random = np.random.default_rng(seed)
    i = np.arange(length)
    valley = 1 + ((i - 60 - 30 * random.random()) / 60) ** 2

    def rough(base: np.ndarray) -> np.ndarray:
        return base * np.exp(0.2 * random.standard_normal(length))

    windowed = rough(1e-3 * valley)
    windowed[:9] = np.nan
    region = np.stack([rough(20 / valley), rough(18 / valley)], axis=1)
    return xr.Dataset(
        {
            "loss": ("iteration", rough(1 / (1 + i))),
            "psnr_noisy": ("iteration", rough(5 + 20 * i / length)),
            "psnr_clean": (("iteration", "region"), region),
            "psnr_average_clean": (("iteration", "region"), region + 1),
            "psnr_held_out": ("iteration", rough(15 / valley)),
            "psnr_second": ("iteration", rough(14 / valley)),
            "pseudo_reference": ("iteration", rough(1e-2 * valley)),
            "pseudo_noise": ("iteration", rough(0.5 / valley)),
            "freedom_share": ("iteration", rough(i / length)),
            "windowed_variance": ("iteration", windowed),
            "moving_variance": ("iteration", rough(1e-2 * valley)),
            "blur": ("iteration", rough(0.3 + 0.3 / (1 + i / 10))),
            "sharpness": ("iteration", rough(0.4 + 0 * i)),
        },
        {"iteration": i, "region": ["whole", "known"]},
        {"noise_sigma": 0.1, "score_region": "whole"},
    )


# Settings that fire within the length of these traces.
RULES: dict[str, Callable[[], Rule]] = {
    "es-wmv": lambda: WindowedVarianceRule(patience=25),
    "es-emv": lambda: MovingVarianceRule(patience=25, start=10),
    "blur-sharpness": lambda: BlurSharpnessRule(n=8, threshold=0.01),
    "discrepancy": lambda: Discrepancy(tau=0.9),
    "held-out": lambda: HeldOut(patience=25),
    "two-copies": lambda: TwoCopies(patience=25),
    "pseudo-reference": lambda: PseudoReferenceRule(patience=25),
    "sure": lambda: Sure(patience=25, averaging=0.0),
    "pseudo-noise": lambda: PseudoNoise(patience=25, averaging=0.0),
    "calibrated": lambda: Calibration(70),
    "function": lambda: FunctionRule(first_loss_below_a_tenth),
}
MEASURES: dict[str, Callable[[], Rule]] = {"delta-mse": DeltaMSE, "oracle": Oracle, "last": Last}


def first_loss_below_a_tenth(trace: xr.Dataset) -> Decision:
    low = np.flatnonzero(trace.loss.values < 0.1)
    return (
        Decision(int(low[0]), int(low[0])) if len(low) else Decision(trace.sizes["iteration"] - 1)
    )


def watch(rule: str, trace: xr.Dataset) -> tuple[int | None, int]:
    """Where a run that is watched stops, and what it returns: one iteration after the other."""
    best, chosen, waited = math.inf, 0, 0
    ratios: list[float] = []
    for i in range(trace.sizes["iteration"]):
        now = {name: float(trace[name].values[i]) for name in trace if trace[name].ndim == 1}
        if rule == "blur-sharpness":
            ratios.append(now["blur"] / now["sharpness"])
            if i > 16:
                before = sum(ratios[i - 16 : i - 8]) / 8
                after = sum(ratios[i - 7 : i]) / 7
                if abs(before - after) < 0.01:
                    return i, i
        elif rule == "discrepancy":
            if 10 ** (-now["psnr_noisy"] / 10) <= 0.81 * 0.01:
                return i, i
        elif rule == "calibrated":
            if i == 70:
                return i, i
        elif rule == "function":
            if now["loss"] < 0.1:
                return i, i
        else:
            score = {
                "es-wmv": now["windowed_variance"],
                "es-emv": now["moving_variance"] if i >= 10 else math.nan,
                "held-out": 10 ** (-now["psnr_held_out"] / 10),
                "two-copies": 10 ** (-now["psnr_second"] / 10),
                "pseudo-reference": now["pseudo_reference"],
                "sure": 10 ** (-now["psnr_noisy"] / 10) + 0.01 * (2 * now["freedom_share"] - 1),
                "pseudo-noise": -now["pseudo_noise"],
            }[rule]
            if math.isnan(score):
                continue
            if score < best:
                best, chosen, waited = score, i, 0
            else:
                waited += 1
                if waited >= 25:
                    return i, chosen
    return None, i if rule in (
        "blur-sharpness",
        "discrepancy",
        "calibrated",
        "function",
    ) else chosen


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_rules_decide_as_if_watching(name: str) -> None:
    stops = []
    for seed in range(12):
        for length in (40, 160):
            trace = trace_of(seed).isel(iteration=slice(length))
            decision = RULES[name]().decide(trace)
            assert (decision.stopped, decision.chosen) == watch(name, trace)
            stops.append(decision.stopped)
    assert sum(stop is not None for stop in stops) >= 10  # it isn't vacuous
    assert len(set(stops)) >= (2 if name == "calibrated" else 4)


@pytest.mark.parametrize("name", [*RULES, *MEASURES])
def test_detection_depends_on_nothing_later(name: str) -> None:
    rule = {**RULES, **MEASURES}[name]()
    for seed in range(4):
        trace = trace_of(seed)
        stopped = rule.detect(trace)
        assert (stopped is None) if name in MEASURES else (stopped is not None)
        for length in range(1, trace.sizes["iteration"] + 1):
            got = rule.detect(trace.isel(iteration=slice(length)))
            assert got == (stopped if stopped is not None and length > stopped else None)
        if stopped is not None:
            watched = trace.isel(iteration=slice(stopped + 1))
            assert rule.decide(watched) == rule.decide(trace)


@pytest.mark.parametrize("seed", range(6))
def test_measures_look_through_the_whole_trace(seed: int) -> None:
    trace = trace_of(seed)
    psnr = trace.psnr_clean.sel(region="whole").values
    oracle = Oracle().decide(trace)
    assert oracle.chosen == max(range(160), key=lambda i: psnr[i])
    assert oracle.value == psnr[oracle.chosen]
    assert Oracle(average=True).decide(trace).value == oracle.value + 1
    assert Last().decide(trace).chosen == 159
    # The difference of the errors is taken where both are: on the known pixels.
    best, where = -math.inf, -1
    for i in range(160):
        noisy = 10 ** (-float(trace.psnr_noisy[i]) / 10)
        clean = 10 ** (-float(trace.psnr_clean.sel(region="known")[i]) / 10)
        if noisy > 0.02 and noisy - clean > best:
            best, where = noisy - clean, i
    delta = DeltaMSE(m=0.02).decide(trace)
    assert (delta.chosen, delta.stopped) == (where, None)
    assert delta.value == pytest.approx(best, rel=1e-12)


def test_delta_mse_stays_above_the_noise_by_default() -> None:
    noisy, clean = np.array([0.30, 0.05, 0.011, 0.005]), np.array([0.31, 0.045, 0.002, 0.006])
    trace = xr.Dataset(
        {
            "psnr_noisy": ("iteration", -10 * np.log10(noisy)),
            "psnr_clean": ("iteration", -10 * np.log10(clean)),
        },
        attrs={"noise_sigma": 0.1},
    )
    assert DeltaMSE().decide(trace).chosen == 2
    assert DeltaMSE().decide(trace).value == pytest.approx(0.009, rel=1e-12)
    assert DeltaMSE(m=0.02).decide(trace).chosen == 1
    with pytest.raises(NotApplicableError, match=r"no output has an error above m = 0\.5"):
        DeltaMSE(m=0.5).decide(trace)
    small = trace.assign(measurement=("low", np.zeros(3)), clean=("high", np.zeros(6)))
    with pytest.raises(NotApplicableError, match=r"shape \(3,\) isn't the image's \(6,\)"):
        DeltaMSE().decide(small)


def test_the_first_of_equal_scores_is_chosen_and_ties_do_not_renew_patience() -> None:
    score = np.array([np.nan, 3.0, 2.0, 2.0, 2.0, 2.0, 1.0])
    trace = xr.Dataset({"windowed_variance": ("iteration", score)})
    assert WindowedVarianceRule(patience=3).decide(trace) == Decision(2, 5, 2.0)
    assert WindowedVarianceRule(patience=4).decide(trace) == Decision(6, None, 1.0)


def test_published_settings() -> None:
    # 1200 iterations: a valley at 150 is left for good after 1000 more.
    i = np.arange(1200)
    trace = xr.Dataset(
        {"windowed_variance": ("iteration", np.where(i < 99, np.nan, abs(i - 150.0)))}
    )
    assert make_rule("es-wmv").decide(trace) == Decision(150, 1150, 0.0)
    trace = xr.Dataset({"moving_variance": ("iteration", abs(i - 50.0))})
    assert make_rule("es-emv").decide(trace) == Decision(100, 1100, 50.0)
    # A constant ratio stops at the first iteration that is looked at.
    trace = xr.Dataset(
        {"blur": ("iteration", 0.3 + 0 * i), "sharpness": ("iteration", 0.5 + 0 * i)}
    )
    assert make_rule("blur-sharpness").decide(trace).stopped == 201
    # Means over i-200 ... i-101 and i-99 ... i-1 of a line of slope s are 99.5 + 1 apart.
    for slope, stopped in ((0.0101 / 100.5, None), (0.0099 / 100.5, 201)):
        line = trace.assign(blur=("iteration", 0.5 * slope * i))
        assert make_rule("blur-sharpness").decide(line).stopped == stopped


def test_a_rule_without_its_ingredient_says_so() -> None:
    trace = xr.Dataset(
        {"psnr_noisy": ("iteration", [10.0, 20.0, 30.0])}, attrs={"noise_sigma": 0.0}
    )
    reasons = {
        "es-wmv": "no 'windowed_variance': fit with the monitor 'windowed-variance'",
        "es-emv": "no 'moving_variance'",
        "blur-sharpness": "no 'blur': fit with the monitor 'blur-sharpness'",
        "discrepancy": "noise_sigma is 0",
        "held-out": r"no 'psnr_held_out': fit task.hold_out\(fraction, seed\)",
        "two-copies": r"no 'psnr_second': fit task.measured_twice\(second\)",
        "pseudo-reference": "no 'pseudo_reference': fit with the monitor 'pseudo-reference'",
        "sure": "no 'freedom_share': fit with the monitor 'twin'",
        "pseudo-noise": "no 'pseudo_noise': fit with the monitor 'twin'",
        "delta-mse": "noise_sigma is 0",
        "calibrated": "nothing was calibrated",
    }
    assert [*reasons, "last", "oracle"] == registry.rule_names()
    for name, reason in reasons.items():
        with pytest.raises(NotApplicableError, match=reason):
            make_rule(name).detect(trace)
    with pytest.raises(NotApplicableError, match="the noise level isn't known"):
        Discrepancy().decide(trace.drop_attrs())
    with pytest.raises(NotApplicableError, match="the clean image isn't known"):
        Oracle().decide(trace)
    nothing = trace.assign(psnr_held_out=("iteration", [np.nan] * 3))
    with pytest.raises(NotApplicableError, match="no pixels are held out"):
        HeldOut().decide(nothing)
    blurless = xr.Dataset(
        {"blur": ("iteration", np.full(300, np.nan)), "sharpness": ("iteration", np.ones(300))}
    )
    with pytest.raises(NotApplicableError, match="a side is below 12 pixels"):
        BlurSharpnessRule().decide(blurless)


def test_a_trace_that_is_too_short_is_undecided_not_inapplicable() -> None:
    trace = trace_of(0).isel(iteration=slice(9))
    messages = {
        "es-wmv": "never full within 9 outputs",
        "es-emv": "starts at iteration 100, the trace ends at 8",
        "blur-sharpness": "starts at iteration 201, the trace ends at 8",
    }
    for name, message in messages.items():
        assert make_rule(name).detect(trace) is None
        with pytest.raises(NotApplicableError, match=message):
            make_rule(name).decide(trace)


def test_own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_FACTORIES", dict(registry._FACTORIES))

    class Tenth(Rule):
        name = "tenth"

        def decide(self, trace: xr.Dataset) -> Decision:
            return Decision(chosen=9, stopped=10)

    def always_five(trace: xr.Dataset) -> int:
        return 5

    panel = stopping_panel(trace_of(1), [Tenth(), always_five, "discrepancy"])
    assert list(panel.rule.values) == ["tenth", "always-five", "discrepancy"]
    assert panel.chosen.values[:2].tolist() == [9, 5]
    assert panel.stopped.values[:2].tolist() == [10, 5]
    with pytest.raises(InvalidInputError, match=r"got the class: pass Tenth\(\.\.\.\)"):
        stopping_panel(trace_of(1), [Tenth])
    with pytest.raises(InvalidInputError, match=r"'tenth' chose iteration 9 of a trace over 0"):
        stopping_panel(trace_of(1).isel(iteration=slice(9)), [Tenth()])
    register_rule("tenth", Tenth)
    assert "tenth" in stopping_panel(trace_of(1)).rule
    with pytest.raises(InvalidInputError, match="a stopping rule 'tenth' already"):
        register_rule("tenth", Tenth)
    with pytest.raises(UnknownNameError, match="no stopping rule 'best'; there are: es-wmv"):
        make_rule("best")


def test_bad_settings() -> None:
    with pytest.raises(InvalidInputError, match="patience must be at least 1, got 0"):
        WindowedVarianceRule(patience=0)
    with pytest.raises(InvalidInputError, match="start must be at least 0, got -1"):
        MovingVarianceRule(start=-1)
    with pytest.raises(InvalidInputError, match="n must be at least 2, got 1"):
        BlurSharpnessRule(n=1)
    with pytest.raises(InvalidInputError, match="threshold must be positive and finite, got 0"):
        BlurSharpnessRule(threshold=0.0)
    with pytest.raises(InvalidInputError, match="tau must be positive and finite, got 0"):
        Discrepancy(tau=0.0)
    with pytest.raises(InvalidInputError, match="m must be finite and not negative, got -1"):
        DeltaMSE(m=-1.0)
    with pytest.raises(InvalidInputError, match="select one run, or use stopping_panel"):
        HeldOut().decide(xr.Dataset({"psnr_held_out": (("seed", "iteration"), np.ones((2, 3)))}))
