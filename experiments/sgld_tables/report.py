"""The tables, beside the published ones."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dipkernels.plotting.style import PALETTE, panels, save_figure, shared_legend
from experiments.harness import Table
from experiments.sgld_verdict.curves import curve, value

# Cheng et al.'s poster, PSNR in dB; the rest of its row on denoising is cut off in our copy.
PUBLISHED = {
    "denoise": {"house": (26.74, 30.86), "peppers": (28.42, 30.82), "lena": (29.17, 32.05)},
    "inpaint": {
        "barbara": (28.48, 33.82),
        "boat": (31.54, 34.26),
        "house": (35.34, 40.13),
        "lena": (35.00, 37.73),
        "peppers": (30.40, 33.97),
        "cameraman": (27.05, 30.33),
        "couple": (30.55, 33.72),
        "fingerprint": (32.24, 33.41),
        "hill": (31.37, 34.03),
        "man": (31.32, 33.54),
        "montage": (30.21, 34.65),
    },
}
COLUMNS = (
    "task", "image", "arm", "seed", "pasted", "readout_at", "readout", "readout_moving", "peak",
    "peak_at", "end", "average", "published",
)  # fmt: skip
GAINS = (
    "task", "image", "seeds", "pasted", "sgd", "sgd_spread", "sgd_peak", "sgld", "sgld_spread",
    "gain", "gain_on_peak", "published_sgd", "published_sgld", "published_gain",
)  # fmt: skip
Unit = tuple[str, str, str, int]
Runs = dict[Unit, xr.Dataset]


def write_report(runs: Runs, readouts: dict[str, dict[str, int]], path: Path) -> str:
    """Write ``results.csv``, ``gains.csv`` and ``gains.png``.

    Parameters
    ----------
    runs : dict
        By task, image, arm and seed.
    readouts : dict of str to dict of str to int
        By task and arm; an arm without one is read as the mean of its draws.
    path : Path
        Of the folder.

    Returns
    -------
    str
        A line for each task.
    """
    rows = [row for unit, run in runs.items() for row in _rows(unit, run, readouts[unit[0]])]
    gains = _gains(rows)
    for name, columns, table in (("results", COLUMNS, rows), ("gains", GAINS, gains)):
        file = path / f"{name}.csv"
        file.unlink(missing_ok=True)
        Table(file, columns, columns[:4]).append(table)
    _draw(gains, path / "gains.png")
    return "\n".join(_line(task, pasted, gains) for task, pasted in _tables(gains))


def _rows(unit: Unit, run: xr.Dataset, readouts: dict[str, int]) -> list[dict[str, Any]]:
    task, image, arm, seed = unit
    stem = Path(image).stem
    found = []
    for prefix in ("", "pasted_"):
        if prefix + "iterate" not in run:
            continue
        centres, means = curve(run, prefix + "iterate")
        best = int(means.argmax())
        at, last = readouts.get(arm), run.attrs["iterations"] - 1
        known = PUBLISHED[task].get(stem)
        found.append(
            {
                "task": task,
                "image": stem,
                "arm": arm,
                "seed": seed,
                "pasted": int(bool(prefix)),
                "readout_at": at or "",
                "readout": value(run, prefix + "iterate", at) if at else "",
                "readout_moving": value(run, prefix + "moving", at) if at else "",
                "peak": float(means[best]),
                "peak_at": float(centres[best]),
                "end": float(means[-1]),
                "average": "" if at else value(run, prefix + "average", last),
                "published": known[arm == "recipe"] if known and arm != "sgd+input" else "",
            }
        )
    return found


# Of the recipe over SGD, by image; spreads are half of the range over seeds.
def _gains(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for task, image, pasted in dict.fromkeys((r["task"], r["image"], r["pasted"]) for r in rows):
        of = [r for r in rows if (r["task"], r["image"], r["pasted"]) == (task, image, pasted)]
        plain = {r["seed"]: r for r in of if r["arm"] == "sgd"}
        recipe = {r["seed"]: r for r in of if r["arm"] == "recipe"}
        seeds = sorted(plain.keys() & recipe.keys())
        if not seeds:
            continue
        sgd = np.array([plain[s]["readout"] for s in seeds])
        peaks = np.array([plain[s]["peak"] for s in seeds])
        sgld = np.array([recipe[s]["average"] for s in seeds])
        known = PUBLISHED[task].get(image)
        found.append(
            {
                "task": task,
                "image": image,
                "seeds": len(seeds),
                "pasted": pasted,
                "sgd": float(sgd.mean()),
                "sgd_spread": float(np.ptp(sgd) / 2),
                "sgd_peak": float(peaks.mean()),
                "sgld": float(sgld.mean()),
                "sgld_spread": float(np.ptp(sgld) / 2),
                "gain": float((sgld - sgd).mean()),
                "gain_on_peak": float((sgld - peaks).mean()),
                "published_sgd": known[0] if known else "",
                "published_sgld": known[1] if known else "",
                "published_gain": known[1] - known[0] if known else "",
            }
        )
    return found


def _tables(gains: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((row["task"], row["pasted"]) for row in gains))


def _line(task: str, pasted: int, gains: list[dict[str, Any]]) -> str:
    of = [row for row in gains if (row["task"], row["pasted"]) == (task, pasted)]
    mean = {key: np.mean([row[key] for row in of]) for key in ("sgd", "sgld", "gain")}
    wins = sum(row["gain"] > 0 for row in of)
    return (
        f"{task}{', pasted' * pasted}: SGD {mean['sgd']:.2f}, SGLD {mean['sgld']:.2f}, gain "
        f"{mean['gain']:+.2f} dB, ahead on {wins} of {len(of)} images"
    )


def _draw(gains: list[dict[str, Any]], path: Path) -> None:
    shown = [t for t in _tables(gains) if t != ("inpaint", 1)]
    figure, axes = panels(len(shown), columns=2, width=4.6, height=3.3)
    for panel, (task, pasted) in zip(axes, shown, strict=True):
        of = [row for row in gains if (row["task"], row["pasted"]) == (task, pasted)]
        places = np.arange(len(of))
        published = [row["published_gain"] or np.nan for row in of]
        for offset, values, colour, name in (
            (-0.27, published, PALETTE[6], "published"),
            (0.0, [row["gain"] for row in of], PALETTE[0], "ours"),
            (0.27, [row["gain_on_peak"] for row in of], PALETTE[5], "ours, on SGD's peak"),
        ):
            panel.bar(places + offset, values, 0.25, color=colour, label=name)
        panel.axhline(0, color="k", lw=0.6)
        panel.set_xticks(places, [row["image"] for row in of], rotation=60, ha="right", fontsize=7)
        panel.set_title({"denoise": "denoising", "inpaint": "inpainting, nothing pasted"}[task])
        panel.set_ylabel("SGLD less SGD (dB)")
    shared_legend(figure, axes[0])
    save_figure(figure, path)
