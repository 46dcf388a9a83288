"""When to stop, as predicted: the optimum of a learning curve, and a stopping rule of it."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.kinds import at_least
from dipkernels.errors import InvalidInputError
from dipkernels.stopping.rules import Decision, Rule, fixed_at


@dataclass(frozen=True)
class StoppingTime:
    """Where a predicted curve is best, in the score region; see `stopping_time`."""

    optimum: float
    earliest: float
    latest: float
    psnr: float
    unit: str
    resolved: bool


@checked
def stopping_time(
    curve: xr.Dataset, *, learning_rate: float | None = None, momentum: float = 0.0
) -> StoppingTime:
    """Read off a predicted curve when a fit should stop.

    Parameters
    ----------
    curve : xarray.Dataset
        As `learning_curve` returns.
    learning_rate : float, optional
        Of a fit on the mean squared error. A curve of the flow, over time, is then told in
        iterations.
    momentum : float
        Of that fit, in [0, 1).

    Returns
    -------
    StoppingTime
        ``optimum``, where the predicted PSNR is highest in the score region (of a peak that isn't
        resolved, where it is certainly as high as ``psnr``, in dB), between ``earliest`` and
        ``latest``, which is infinite where the curve ends before: by ``unit`` in "time", that of
        the curve, or "iteration", not rounded. ``resolved`` says whether the numerics tell a peak.

    Raises
    ------
    InvalidInputError
        If it is no predicted curve, a learning rate is given for a curve that is over iterations
        already, a momentum without one, or either is out of range.

    Notes
    -----
    The optimum lies among the times at which the upper curve reaches the highest point of the
    lower one, as surely as the band holds the truth; the bracket is the first and the last of
    them. It says nothing of the network's departure from its linearisation. Time t is iteration
    ``t n (1 - momentum) / (2 learning_rate)`` of a fit of n outputs, for steps well within
    stability.
    """
    if "peak_time" not in curve.attrs or "psnr_upper" not in curve:
        raise InvalidInputError("expected a curve as learning_curve returns: this has no peak_time")
    unit = "time" if "time" in curve.dims else "iteration"
    factor = 1.0
    if learning_rate is None:
        if momentum != 0:
            raise InvalidInputError("momentum has no effect without a learning rate: give both")
    elif unit == "iteration":
        raise InvalidInputError("this curve is over iterations: leave out the learning rate")
    elif not (0 < learning_rate < np.inf and 0 <= momentum < 1):
        raise InvalidInputError(
            "the learning rate must be positive and the momentum in [0, 1), got "
            f"{learning_rate} and {momentum}"
        )
    else:
        factor = curve.attrs["outputs"] * (1 - momentum) / (2 * learning_rate)
    score = curve.sel(region=curve.attrs["score_region"])
    times, upper = score[unit].values, score.psnr_upper.values
    possible = times[upper >= score.psnr_lower.values.max()]
    latest = np.inf if possible.max() == times.max() else factor * possible.max()
    return StoppingTime(
        optimum=float(factor * curve.attrs["peak_time"]),
        earliest=float(factor * possible.min()),
        latest=float(latest),
        psnr=float(curve.attrs["peak_psnr"]),
        unit=unit if factor == 1.0 and learning_rate is None else "iteration",
        resolved=bool(curve.attrs["peak_resolved"]),
    )


@checked
@dataclass(frozen=True)
class PredictedOptimum(Rule):
    """Stop where a predicted learning curve is best; see `of_curve`.

    Attributes
    ----------
    iteration : int
        Where; not negative.
    psnr : float
        Predicted there, in dB.
    needs_truth : bool
        Whether the curve was predicted from the clean image of the very fit that is judged.
    """

    iteration: Annotated[int, at_least(0)]
    psnr: float = float("nan")
    needs_truth: bool = False

    name = "predicted"

    @classmethod
    def of_curve(
        cls,
        curve: xr.Dataset,
        *,
        learning_rate: float | None = None,
        momentum: float = 0.0,
        needs_truth: bool = False,
    ) -> "PredictedOptimum":
        """Make the rule from a curve.

        Parameters
        ----------
        curve : xarray.Dataset
            As `learning_curve` returns.
        learning_rate : float, optional
            Needed for a curve over time, see `stopping_time`.
        momentum : float
            Of the fit, see `stopping_time`.
        needs_truth : bool
            Say so if the curve's clean image is that of the fit to be judged: the rule then knows
            the answer, and gets the star of such. Else the curve should be of another image.

        Returns
        -------
        PredictedOptimum
            At the nearest iteration.

        Raises
        ------
        InvalidInputError
            If the optimum isn't known in iterations.
        """
        found = stopping_time(curve, learning_rate=learning_rate, momentum=momentum)
        if found.unit != "iteration":
            raise InvalidInputError(
                "this curve is over time: give the learning rate of the fit that is to stop"
            )
        return cls(round(found.optimum), found.psnr, needs_truth)

    def decide(self, trace: xr.Dataset) -> Decision:
        """Choose the predicted iteration, or the last one of a trace that ends before it."""
        return fixed_at(trace, self.iteration, self.psnr)
