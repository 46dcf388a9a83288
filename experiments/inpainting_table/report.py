"""Tables and figures of the inpainting fits."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.stats import kendalltau
from skimage.restoration import inpaint_biharmonic

from dipkernels.plotting import style
from dipkernels.tasks import Task

# Table 1 of the transformer report: mean squared error over the whole image.
PUBLISHED = {
    "woman": {
        "SkipNet": 0.000244,
        "ViT": 0.000390,
        "Swin": 0.000395,
        "ViT, 3 conv": 0.000289,
        "3 conv, ViT": 0.000423,
    },
    "vase": {
        "SkipNet": 0.00149,
        "ViT": 0.001650,
        "Swin": 0.001643,
        "ViT, 3 conv": 0.001814,
        "3 conv, ViT": 0.001823,
    },
}
REGIONS = ("whole", "hole", "known")
READOUTS = {"final": None, "best whole": "whole", "best hole": "hole"}
Results = Mapping[tuple[str, str, int], xr.Dataset]


def write_report(
    output: Path, problems: Mapping[str, Task], published: Mapping[str, Task], results: Results
) -> None:
    """Write ``results.csv``, ``summary.csv``, ``orders.csv``, ``fills.csv`` and the figures.

    Parameters
    ----------
    output : Path
        Folder.
    problems : mapping of str to Task
        By name.
    published : mapping of str to Task
        Those at the files' own sizes, where only fills are scored.
    results : mapping of (problem, network, seed) to Dataset
        Of `dipkernels.fit`: ``psnr_clean``, ``mse``, and of the first seed ``final``.
    """
    table = pd.DataFrame(
        [row for unit, fitted in results.items() for row in readouts(unit, fitted)]
    )
    hidden = {name: float((~task.mask).double().mean()) for name, task in problems.items()}
    table["hole_part"] = table.hole * table.problem.map(hidden)
    table["hole_share"] = table.hole_part / table.whole
    filled = [row for name, task in problems.items() for row in fill_rows(name, task)]
    larger = [row for name, task in published.items() for row in fill_rows(name, task)]
    fills = pd.DataFrame(filled + larger)
    keys = ["problem", "readout", "network"]
    grouped = table.groupby(keys, sort=False)[[*REGIONS, "hole_part", "hole_share", "iteration"]]
    summary = grouped.agg(["mean", "std"])
    summary.columns = ["_".join(column) for column in summary.columns]
    summary.insert(0, "seeds", grouped.size())
    orders = pd.DataFrame(order_rows(table))
    for name, frame in (
        ("results", table),
        ("summary", summary.reset_index()),
        ("orders", orders),
        ("fills", fills),
    ):
        frame.to_csv(output / f"{name}.csv", index=False, float_format="%.6g")
    draw_scores(output / "scores.png", table, pd.DataFrame(filled))
    draw_images(output / "images.png", problems, results)


def readouts(unit: tuple[str, str, int], fitted: xr.Dataset) -> list[dict[str, object]]:
    """Read the errors over all regions at the end, and where two of them are least."""
    errors = 10 ** (-fitted.psnr_clean / 10)
    rows: list[dict[str, object]] = []
    for readout, region in READOUTS.items():
        at = len(errors) - 1 if region is None else int(np.argmin(errors.sel(region=region).values))
        scores = {name: float(errors.sel(region=name)[at]) for name in REGIONS}
        row = dict(zip(("problem", "network", "seed"), unit, strict=True))
        rows.append({**row, "readout": readout, "iteration": at, **scores})
    return rows


def fill_rows(name: str, task: Task) -> list[dict[str, object]]:
    """Score fills of the hole that no network made, every known pixel being right."""
    mask = task.mask.cpu()
    clean, hole = task.clean.double().cpu(), ~mask
    smooth = inpaint_biharmonic(
        (clean * mask).numpy().transpose(1, 2, 0), hole.numpy(), channel_axis=-1
    )
    filled = {
        "mean of the known": clean[:, mask].mean(dim=1),
        "mean of the hole": clean[:, hole].mean(dim=1),
        "biharmonic": torch.from_numpy(np.clip(smooth, 0, 1)[hole.numpy()].T),
    }
    rows: list[dict[str, object]] = []
    for fill, values in filled.items():
        error = (clean[:, hole] - values.reshape(len(clean), -1)).square().mean().item()
        share = hole.double().mean().item()
        row = {"problem": name, "height": clean.shape[1], "width": clean.shape[2], "fill": fill}
        rows.append({**row, "hidden": share, "hole": error, "whole": share * error})
    return rows


def order_rows(table: pd.DataFrame) -> list[dict[str, object]]:
    """Order the networks by the mean over seeds, and compare with the published orders."""
    rows: list[dict[str, object]] = []
    for (problem, readout), part in table.groupby(["problem", "readout"], sort=False):
        for region in REGIONS:
            means = part.groupby("network", sort=False)[region].mean().sort_values()
            row = {"problem": problem, "readout": readout, "region": region}
            row["order"] = " < ".join(means.index)
            for published, scores in PUBLISHED.items():
                shared = [network for network in means.index if network in scores]
                tau = (
                    kendalltau(means[shared], [scores[network] for network in shared]).statistic
                    if len(shared) > 1
                    else float("nan")
                )
                row[f"tau_{published}"] = tau
            rows.append(row)
    return rows


SHIFTS = (-0.2, 0.0, 0.2)
PARTS = {
    "whole image": "black",
    "hole's part": style.PALETTE[4],
    "known pixels' part": style.PALETTE[0],
}


def draw_scores(path: Path, table: pd.DataFrame, fills: pd.DataFrame) -> None:
    """Draw the whole-image error, and what hole and known pixels add to it, of every seed."""
    final = table[table.readout == "final"]
    problems = list(dict.fromkeys(final.problem))
    names = list(dict.fromkeys(final.network))
    places = np.arange(len(names))
    figure, axes = style.panels(len(problems), width=3.6, height=3.2)
    for axis, problem in zip(axes, problems, strict=True):
        part = final[final.problem == problem]
        at = part.network.map(names.index)
        values = (part.whole, part.hole_part, part.whole - part.hole_part)
        for offset, (name, colour), value in zip(
            (-0.2, 0, 0.2), PARTS.items(), values, strict=True
        ):
            axis.plot(at + offset, value, "o", color=colour, ms=4, label=name)
        if problem in PUBLISHED:
            published = [PUBLISHED[problem].get(name, np.nan) for name in names]
            style_of = {"ms": 6, "mfc": "none", "label": "published, whole"}
            axis.plot(places + SHIFTS[0], published, "kD", **style_of)
        smooth = fills[(fills.problem == problem) & (fills.fill == "biharmonic")].whole.item()
        axis.axhline(smooth, color=style.PALETTE[2], ls="--", label="smooth fill, rest right")
        axis.set_xticks(places, [name.replace(", ", ",\n") for name in names], fontsize=7)
        axis.set_title(problem)
        axis.set_yscale("log")
    axes[0].set_ylabel("mean squared error, white = 1")
    labelled = max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[1]))
    style.shared_legend(figure, labelled)
    style.save_figure(figure, path)


def draw_images(path: Path, problems: Mapping[str, Task], results: Results) -> None:
    """Draw every problem with the last output of every network, of the first seed."""
    names = list(dict.fromkeys(network for _, network, _ in results))
    first = min(seed for _, _, seed in results)
    figure, axes = style.panels(
        len(problems) * (len(names) + 2), columns=len(names) + 2, width=1.35, height=1.55
    )
    places = iter(axes)
    for problem, task in problems.items():
        style.show_image(next(places), task.clean.cpu().numpy(), problem)
        style.show_image(next(places), task.measurement.cpu().numpy(), "measured")
        for network in names:
            axis, fitted = next(places), results.get((problem, network, first))
            if fitted is None:
                axis.set_axis_off()
                continue
            hole = float(fitted.mse.sel(picture="final", region="hole"))
            known = float(fitted.mse.sel(picture="final", region="known"))
            title = f"{network}\nhole {1e3 * hole:.0f}, known {1e3 * known:.2f}"
            style.show_image(axis, fitted.final.values, title)
            axis.title.set_fontsize(6.5)
    figure.suptitle("last iteration; mean squared errors in thousandths", fontsize=8)
    style.save_figure(figure, path)
