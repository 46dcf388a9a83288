"""When to stop, and how much total variation, as the training images say."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

# What of an image is scored: the literature leaves out a border of the super-resolved ones.
REGION = {"super-resolution": "interior", "flash": "whole"}
RULES = ("median", "mean", "common")


def curve(task: str, fitted: xr.Dataset) -> np.ndarray:
    """PSNR to the truth by iteration, in dB, over what is scored."""
    return np.asarray(fitted.psnr_clean.sel(region=REGION[task]).values)


def calibrate(trained: Mapping[Any, xr.Dataset]) -> pd.DataFrame:
    """Choose iterations by three rules for every task, network and weight.

    Parameters
    ----------
    trained : mapping of unit to Dataset
        Fits of the training images; all of one task of one length.

    Returns
    -------
    DataFrame
        By ``rule``: the ``median`` and the ``mean`` of the iterations of the peaks, and the
        ``common`` iteration at which the mean PSNR of the training images is highest; with that
        mean (``psnr``) and how much the oracle's peaks are above it (``loss``), in dB.
    """
    groups: dict[tuple[str, str, float], list[np.ndarray]] = {}
    for unit, fitted in trained.items():
        key = (unit.task, unit.network, unit.weight)
        groups.setdefault(key, []).append(curve(unit.task, fitted))
    rows = []
    for (task, network, weight), curves in groups.items():
        stacked = np.stack(curves)
        peaks = stacked.argmax(axis=1)
        iterations = (np.median(peaks), peaks.mean(), stacked.mean(axis=0).argmax())
        for rule, iteration in zip(RULES, iterations, strict=True):
            at = round(float(iteration))
            rows.append(
                {
                    "task": task,
                    "network": network,
                    "weight": weight,
                    "rule": rule,
                    "iteration": at,
                    "earliest_peak": int(peaks.min()),
                    "latest_peak": int(peaks.max()),
                    "psnr": stacked[:, at].mean(),
                    "loss": (stacked.max(axis=1) - stacked[:, at]).mean(),
                }
            )
    return pd.DataFrame(rows)


def chosen_weights(table: pd.DataFrame) -> dict[tuple[str, str], list[float]]:
    """Choose the weights to test: 0, and of the others the best on the training images.

    Parameters
    ----------
    table : DataFrame
        Of `calibrate`.

    Returns
    -------
    dict of (task, network) to list of float
        The best by PSNR at the median's iteration.
    """
    chosen: dict[tuple[str, str], list[float]] = {}
    for key, part in table[table.rule == "median"].groupby(["task", "network"], sort=False):
        with_penalty = part[part.weight > 0]
        best = [] if with_penalty.empty else [with_penalty.loc[with_penalty.psnr.idxmax()].weight]
        chosen[key] = [0.0, *(float(weight) for weight in best)]
    return chosen
