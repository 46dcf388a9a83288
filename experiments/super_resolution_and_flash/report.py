"""Tables and figures of super-resolution and flash/no-flash."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dipkernels.plotting import style
from dipkernels.tasks import Task
from experiments.super_resolution_and_flash.calibration import REGION, RULES, curve
from experiments.super_resolution_and_flash.problems import baselines

Fits = Mapping[Any, xr.Dataset]
Problems = Mapping[tuple[str, str], Task]


def write_report(
    output: Path, problems: Problems, table: pd.DataFrame, trained: Fits, tested: Fits
) -> None:
    """Write ``train.csv``, ``calibration.csv``, ``test.csv``, ``summary.csv`` and the figures.

    Parameters
    ----------
    output : Path
        Folder.
    problems : mapping of (task, image) to Task
        All.
    table : DataFrame
        Of the calibration.
    trained, tested : mapping of unit to Dataset
        All fits.
    """
    judged = {unit: fitted for unit, fitted in tested.items() if "psnr_clean" in fitted}
    train = pd.DataFrame([peak_row(unit, fitted) for unit, fitted in trained.items()])
    test = pd.DataFrame([test_row(unit, fitted, table) for unit, fitted in judged.items()])
    values = [
        column for column in test if column not in ("task", "network", "weight", "image", "seed")
    ]
    grouped = test.groupby(["task", "image", "network", "weight"], sort=False)[values]
    summary = grouped.agg(["mean", "std"])
    summary.columns = ["_".join(column) for column in summary.columns]
    summary.insert(0, "seeds", grouped.size())
    compared = sorted({(unit.task, unit.image) for unit in judged})
    plain = pd.DataFrame(
        [
            {
                "task": key[0],
                "image": key[1],
                "baseline": name,
                "psnr": float(problems[key].psnr(image, REGION[key[0]])),
            }
            for key in compared
            for name, image in baselines(problems[key]).items()
        ]
    )
    for name, frame in (
        ("train", train),
        ("calibration", table),
        ("test", test),
        ("summary", summary.reset_index()),
        ("baselines", plain),
    ):
        frame.to_csv(output / f"{name}.csv", index=False, float_format="%.6g")
    draw_curves(output / "curves.png", judged, table)
    draw_images(output / "images.png", problems, judged)
    real = {unit: fitted for unit, fitted in tested.items() if unit not in judged}
    if real:
        draw_images(output / "pairs.png", problems, real)


def peak_row(unit: Any, fitted: xr.Dataset) -> dict[str, object]:
    """Say where a fit has its peak, and where it ends, in dB."""
    psnr = curve(unit.task, fitted)
    peak = {"peak": psnr.max(), "peak_iteration": int(psnr.argmax()), "last": psnr[-1]}
    return {**unit._asdict(), **peak}


def test_row(unit: Any, fitted: xr.Dataset, table: pd.DataFrame) -> dict[str, object]:
    """Score a fit of a test image where the training images said to stop, by every rule."""
    psnr = curve(unit.task, fitted)
    row = {**peak_row(unit, fitted), "loss_last": psnr.max() - psnr[-1]}
    same = table[
        (table.task == unit.task) & (table.network == unit.network) & (table.weight == unit.weight)
    ].set_index("rule")
    for rule in RULES:
        stopped = psnr[int(same.loc[rule].iteration)]
        row[f"psnr_{rule}"], row[f"loss_{rule}"] = stopped, psnr.max() - stopped
    return row


def label(unit: Any) -> str:
    """Name an arm."""
    return unit.network + (" + TV" if unit.weight else "")


def draw_curves(path: Path, judged: Fits, table: pd.DataFrame) -> None:
    """Draw PSNR against iteration of every test image, and where the training images stop."""
    places = list(dict.fromkeys((unit.task, unit.image) for unit in judged))
    colours = style.colours(list(dict.fromkeys(label(unit) for unit in judged)))
    first = min(unit.seed for unit in judged)
    figure, axes = style.panels(len(places), columns=2, width=4.2, height=2.8)
    for axis, (task, image) in zip(axes, places, strict=True):
        low, high = np.inf, -np.inf
        for unit, fitted in judged.items():
            if (unit.task, unit.image) != (task, image):
                continue
            psnr, colour = curve(task, fitted), colours[label(unit)]
            named = label(unit) if unit.seed == first else None
            axis.plot(psnr, color=colour, lw=1, label=named)
            low, high = min(low, np.percentile(psnr, 15)), max(high, psnr.max())
            same = (table.task == task) & (table.network == unit.network)
            same &= (table.weight == unit.weight) & (table.rule == "median")
            stop = int(table[same].iteration.iloc[0])
            axis.plot(stop, psnr[stop], "o", color=colour, ms=6, mec="black", zorder=3)
        axis.set_title(f"{task}: {Path(image).stem}")
        axis.set_xlabel("iteration")
        axis.set_ylim(low - 0.5, high + 0.5)
    for axis in axes[::2]:
        axis.set_ylabel("PSNR to the truth (dB)")
    labelled = max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[1]))
    style.shared_legend(figure, labelled)
    style.save_figure(figure, path)


def draw_images(path: Path, problems: Problems, fits: Fits) -> None:
    """Draw what was measured and the images at the calibrated iterations, of the first seed."""
    first: dict[str, int] = {}
    for unit in fits:
        first.setdefault(unit.task, unit.seed)
    fits = {unit: fitted for unit, fitted in fits.items() if unit.seed == first[unit.task]}
    places = list(dict.fromkeys((unit.task, unit.image) for unit in fits))
    arms = list(dict.fromkeys(label(unit) for unit in fits))
    given = 3 if any(problems[place].clean is not None for place in places) else 2
    columns = given + len(arms)
    figure, axes = style.panels(len(places) * columns, columns=columns, width=1.5, height=1.7)
    for axis in axes:
        axis.set_axis_off()
    for row, (task, image) in enumerate(places):
        problem, line = problems[task, image], axes[row * columns :]
        name = f"{task.replace('super-resolution', 'small')}: {Path(image).stem}"
        style.show_image(line[0], problem.measurement.cpu().numpy(), name)
        if problem.guide is not None:
            style.show_image(line[1], problem.guide.cpu().numpy(), "with flash")
        else:
            plain, made = next(iter(baselines(problem).items()))
            score = float(problem.psnr(made, REGION[task]))
            style.show_image(line[1], made.cpu().numpy(), f"{plain}\n{score:.2f} dB")
        if problem.clean is not None:
            style.show_image(line[2], problem.clean.cpu().numpy(), "truth")
        for unit, fitted in fits.items():
            if (unit.task, unit.image) == (task, image):
                title = label(unit)
                if problem.clean is not None:
                    title += f"\n{stopped_psnr(fitted, problem, REGION[task]):.2f} dB"
                axis = line[given + arms.index(label(unit))]
                style.show_image(axis, fitted.at_stop.values, title)
    style.save_figure(figure, path)


def stopped_psnr(fitted: xr.Dataset, problem: Task, region: str) -> float:
    """PSNR of the image at the calibrated iteration, in dB."""
    if "psnr_at_stop" in fitted.attrs:
        return float(fitted.attrs["psnr_at_stop"])
    # A fit of an earlier version, which has the whole image.
    return float(problem.psnr(problem.measurement.new_tensor(fitted.at_stop.values), region))
