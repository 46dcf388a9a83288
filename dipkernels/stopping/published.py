"""The rules of the literature, and the measures that they are held against.

Wherever a rule lacks its monitor, the noise level or the truth, it raises `NotApplicableError`.
"""

from dataclasses import replace
from typing import Annotated

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Count, NotNegative, Positive, at_least
from dipkernels.stopping.rules import (
    Decision,
    NotApplicableError,
    PatientRule,
    Rule,
    TooShortError,
    clean_psnr,
    first_at,
    noise_level,
    patient_minimum,
    squared_error,
    values,
)

__all__ = [
    "BlurSharpnessRule",
    "DeltaMSE",
    "Discrepancy",
    "HeldOut",
    "Last",
    "MovingVarianceRule",
    "Oracle",
    "WindowedVarianceRule",
]


@checked
class WindowedVarianceRule(PatientRule):
    """ES-WMV: the output where the variance of the last outputs is lowest.

    Source: that of its monitor, `dipkernels.stopping.monitors.WindowedVariance`.

    Parameters
    ----------
    patience : int
        Stops after so many iterations without a lower variance; published: 1000.
    """

    name = "es-wmv"
    monitor = "windowed-variance"

    def decide(self, trace: xr.Dataset) -> Decision:
        """Choose the last output of the window with the lowest ``windowed_variance``."""
        score = values(trace, "windowed_variance", "fit with the monitor 'windowed-variance'")
        full = np.flatnonzero(np.isfinite(score))
        if len(full) == 0:
            raise TooShortError(f"the window was never full within {len(score)} outputs")
        return patient_minimum(score, self.patience, start=int(full[0]))


@checked
class MovingVarianceRule(PatientRule):
    """ES-EMV: the output where the exponential moving variance is lowest.

    Source: that of its monitor, `dipkernels.stopping.monitors.MovingVariance`.

    Parameters
    ----------
    patience : int
        Stops after so many iterations without a lower variance; published: 1000.
    start : int
        First iteration that is looked at; published: 100.
    """

    name = "es-emv"
    monitor = "moving-variance"

    def __init__(self, patience: Count = 1000, start: Annotated[int, at_least(0)] = 100) -> None:
        super().__init__(patience)
        self.start = start

    def decide(self, trace: xr.Dataset) -> Decision:
        """Choose the iteration with the lowest ``moving_variance``."""
        score = values(trace, "moving_variance", "fit with the monitor 'moving-variance'")
        if len(score) <= self.start:
            raise TooShortError(
                f"it starts at iteration {self.start}, the trace ends at {len(score) - 1}"
            )
        return patient_minimum(score, self.patience, self.start)


@checked
class BlurSharpnessRule(Rule):
    """Spectral-bias rule: stop once the ratio of blurriness to sharpness no longer changes.

    At iteration i > 2n it compares the mean ratio over i-2n ... i-n-1 with that over
    i-n+1 ... i-1, and stops if they differ by less than the threshold, as the published code does.

    Parameters
    ----------
    n : int
        Published: 100.
    threshold : float
        Published: 0.01.

    References
    ----------
    Shi, Mettes, Maji, Snoek: On Measuring and Controlling the Spectral Bias of the Deep Image
    Prior. IJCV 2022.
    """

    name = "blur-sharpness"
    monitor = "blur-sharpness"

    def __init__(self, n: Annotated[int, at_least(2)] = 100, threshold: Positive = 0.01) -> None:
        self.n, self.threshold = n, threshold

    def decide(self, trace: xr.Dataset) -> Decision:
        """Judge by ``blur`` and ``sharpness``; ``value`` is the difference of the means."""
        hint = "fit with the monitor 'blur-sharpness'"
        blur, sharpness = values(trace, "blur", hint), values(trace, "sharpness", hint)
        if len(blur) <= 2 * self.n + 1:
            raise TooShortError(
                f"it starts at iteration {2 * self.n + 1}, the trace ends at {len(blur) - 1}"
            )
        if np.isnan(blur).all():
            raise NotApplicableError(
                "no output has a blurriness: a side is below 12 pixels, or all are constant"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = blur / sharpness
        difference = self._differences(ratio)
        decision = first_at(difference < self.threshold)
        return replace(decision, value=float(difference[decision.chosen]))

    def _differences(self, ratio: np.ndarray) -> np.ndarray:
        n = self.n
        windows = np.lib.stride_tricks.sliding_window_view
        # Means, not differences of cumulative sums: early ratios are huge, and would cancel.
        with np.errstate(invalid="ignore"):  # a constant output has no ratio
            before = windows(ratio, n).mean(axis=1)  # entry k: over k ... k+n-1
            after = windows(ratio, n - 1).mean(axis=1)
            i = np.arange(2 * n + 1, len(ratio))
            change = np.abs(before[i - 2 * n] - after[i - n + 1])
        return np.concatenate([np.full(2 * n + 1, np.nan), change])


@checked
class Discrepancy(Rule):
    """Discrepancy principle: stop once the misfit is down to the noise.

    The first iteration whose mean squared error to the measurement, on what was measured, is at
    most ``tau^2 sigma^2``.

    Parameters
    ----------
    tau : float
        Above 0; 1 takes the noise level as it is stated.

    References
    ----------
    Morozov: On the solution of functional equations by the method of regularization. Soviet Math.
    Doklady 1966.
    """

    name = "discrepancy"

    def __init__(self, tau: Positive = 1.0) -> None:
        self.tau = tau

    def decide(self, trace: xr.Dataset) -> Decision:
        """Judge by ``psnr_noisy`` and the noise level; ``value`` is the mean squared error."""
        level = (self.tau * noise_level(trace)) ** 2
        error = squared_error(values(trace, "psnr_noisy"))
        decision = first_at(error <= level)
        return replace(decision, value=float(error[decision.chosen]))


@checked
class HeldOut(PatientRule):
    """Held-out pixels: the output that predicts best what was measured but not fitted.

    Parameters
    ----------
    patience : int
        Stops after so many iterations without a lower error.
    """

    name = "held-out"

    def decide(self, trace: xr.Dataset) -> Decision:
        """Judge by ``psnr_held_out``; ``value`` is the mean squared error there."""
        error = squared_error(values(trace, "psnr_held_out", "fit task.hold_out(fraction, seed)"))
        if np.isnan(error).all():
            raise NotApplicableError("no pixels are held out: fit task.hold_out(fraction, seed)")
        return patient_minimum(error, self.patience)


@checked
class DeltaMSE(Rule):
    """The transformer report's criterion: how far the output is from the noise but not the truth.

    The largest ``MSE(noisy) - MSE(clean)`` over the iterations with ``MSE(noisy) > m``. It measures
    a prior and knows the truth, so that nobody can stop by it.

    Parameters
    ----------
    m : float, optional
        In squared units of the image; by default the variance of the noise.

    References
    ----------
    Deep image priors for transformers and their variants (report), section 3.
    """

    name = "delta-mse"
    needs_truth = True

    def __init__(self, m: NotNegative | None = None) -> None:
        self.m = m

    def decide(self, trace: xr.Dataset) -> Decision:
        """Judge by both PSNR on what was measured; ``value`` is the difference of the errors."""
        variance = noise_level(trace) ** 2
        if "measurement" in trace and "clean" in trace:
            shapes = trace["measurement"].shape, trace["clean"].shape
            if shapes[0] != shapes[1]:
                raise NotApplicableError(
                    f"the measurement's shape {shapes[0]} isn't the image's {shapes[1]}: their "
                    "errors can't be subtracted"
                )
        known = "region" in trace.dims and "known" in trace["region"].values
        clean = squared_error(clean_psnr(trace, region="known" if known else "whole"))
        noisy = squared_error(values(trace, "psnr_noisy"))
        m = variance if self.m is None else self.m
        far = noisy > m
        if not far.any():
            raise NotApplicableError(f"no output has an error above m = {m:.4g} to the measurement")
        difference = np.where(far, noisy - clean, -np.inf)
        chosen = int(difference.argmax())
        return Decision(chosen, value=float(difference[chosen]))


@checked
class Oracle(Rule):
    """The best output of the trace, which only who knows the clean image can choose.

    Parameters
    ----------
    average : bool
        Judge the running averages of the outputs instead.
    """

    name = "oracle"
    needs_truth = True

    def __init__(self, average: bool = False) -> None:
        self.average = average

    def decide(self, trace: xr.Dataset) -> Decision:
        """Choose the highest PSNR in the score region; ``value`` is that, in dB."""
        psnr = clean_psnr(trace, average=self.average)
        chosen = int(np.nanargmax(psnr))
        return Decision(chosen, value=float(psnr[chosen]))


@checked
class Last(Rule):
    """No rule: the output of the last iteration."""

    name = "last"

    def decide(self, trace: xr.Dataset) -> Decision:
        """Choose the last iteration; it never stops a fit."""
        return Decision(trace.sizes["iteration"] - 1)
