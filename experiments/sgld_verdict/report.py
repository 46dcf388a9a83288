"""Tables and figures of what has been stored."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dipkernels.plotting.style import PALETTE, panels, save_figure, shared_legend
from dipkernels.storage.runs import RunFolder
from experiments.harness import Table
from experiments.sgld_verdict.chains import STARTS
from experiments.sgld_verdict.curves import curve, doubling, value

CORRECT = "sghmc 1"  # drawn beside the arms
COLUMNS = (
    "image", "arm", "seed", "picture", "iterations", "readout_at", "readout", "peak", "peak_at",
    "end", "drop", "last_doubling", "rollbacks", "norm_start", "norm_end",
)  # fmt: skip
CHAIN_COLUMNS = (
    "image", "sampler", "seed", "start", "evaluations", "step", "before", "lowest", "highest",
    "end", "average_end", "last_doubling", "misfit_before", "misfit_end", "rhat_both",
    "rhat_median_both", "rhat_start", "ess_start", "converged",
)  # fmt: skip
CURVE_COLUMNS = ("image", "arm", "picture", "iteration", "seeds", "psnr", "spread")
SHOWN = {"sgd": 0, "sgd+input": 1, "sgd+input+wd": 2, "recipe": 4}
Label = Callable[..., str]


def write_report(preset: Any, folder: RunFolder, label: Label) -> str:
    """Write ``results.csv``, ``chains.csv``, ``curves.csv`` and the figures.

    Parameters
    ----------
    preset : Preset
        Of the run.
    folder : RunFolder
        With the results; those that are missing are left out.
    label : callable
        From image, name and seed to the name of a result.

    Returns
    -------
    str
        A few lines.
    """
    found = {unit: folder.stored(label(*unit)) for unit in preset.runs()}
    runs = {unit: result for unit, result in found.items() if result is not None}
    sampled = {unit: folder.stored(label(*unit)) for unit in preset.chains()}
    chains = {unit: result for unit, result in sampled.items() if result is not None}
    rows = [row for unit, run in runs.items() for row in _rows(unit, run, preset)]
    write(folder.path / "results.csv", COLUMNS, rows)
    of_chains = [row for unit, run in chains.items() for row in chain_rows(unit, run, preset)]
    write(folder.path / "chains.csv", CHAIN_COLUMNS, of_chains)
    write(folder.path / "curves.csv", CURVE_COLUMNS, _curves(runs, chains, preset))
    _draw_images(preset, runs, chains, folder.path / "psnr.png")
    draw_chains(preset, chains, folder.path / "chains.png")
    _draw_ablations(preset, runs, folder.path / "ablations.png")
    lines = [
        f"{r['image']:8s} {r['arm']:28s} {r['seed']} {r['picture']:8s} peak {r['peak']:.2f} at "
        f"{r['peak_at']:.0f}, end {r['end']:.2f}, last doubling {r['last_doubling']:+.2f} dB"
        for r in rows
        if r["picture"] != "moving"
    ]
    return "\n".join(lines)


def write(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Write a table anew."""
    path.unlink(missing_ok=True)
    Table(path, columns, columns[:3]).append(rows)


def _rows(unit: tuple[str, str, int], run: xr.Dataset, preset: Any) -> list[dict[str, Any]]:
    image, arm, seed = unit
    plain, noisy, recipe = preset.readouts
    at = recipe if arm.startswith("recipe") else noisy if "input" in arm else plain
    found = []
    for picture in ("iterate", "moving", "average"):
        centres, means = curve(run, picture)
        if not len(means):
            continue
        best = int(means.argmax())
        norms = run["norm"].values
        readout = value(run, picture, at)
        found.append(
            {
                "image": Path(image).stem,
                "arm": arm,
                "seed": seed,
                "picture": picture,
                "iterations": run.attrs["iterations"],
                "readout_at": at,
                "readout": "" if readout is None else readout,
                "peak": float(means[best]),
                "peak_at": float(centres[best]),
                "end": float(means[-1]),
                "drop": float(means[best] - means[-1]),
                "last_doubling": doubling(centres, means),
                "rollbacks": run.attrs["rollbacks"],
                "norm_start": float(norms[0]),
                "norm_end": float(norms[-1]),
            }
        )
    return found


def chain_rows(unit: tuple[str, str], run: xr.Dataset, preset: Any) -> list[dict[str, Any]]:
    """List what came of each chain, a row of ``chains.csv`` each."""
    image, name = unit
    found = []
    for start, seed, one in _each_chain(name, run, preset):
        row = {"image": Path(image).stem, "sampler": name, "seed": seed, "start": start}
        row["step"] = run.attrs["step_size"]
        if int(one["ended_at"]) >= 0:
            found.append(dict.fromkeys(CHAIN_COLUMNS, "") | row | {"converged": "diverged"})
            continue
        centres, means = curve(one, "iterate")
        _, misfits = curve(one, "misfit")
        found.append(
            row
            | {
                "evaluations": preset.spent(start) + int(one["length"]),
                "before": float(one["before"]),
                "lowest": float(means.min()),
                "highest": float(means.max()),
                "end": float(means[-1]),
                "average_end": float(one["average_end"]),
                "last_doubling": doubling(centres, means),
                "misfit_before": float(one["misfit_before"]),
                "misfit_end": float(misfits[-1]),
                "rhat_both": run.attrs.get("rhat_all", ""),
                "rhat_median_both": run.attrs.get("rhat_median_all", ""),
                # of chains that all begin alike, one number
                "rhat_start": run.attrs.get(f"rhat_{start if start in STARTS else 'all'}", ""),
                "ess_start": run.attrs.get(f"ess_{start}", ""),
                "converged": run.attrs.get("converged_all", ""),
            }
        )
    return found


def _each_chain(name: str, run: xr.Dataset, preset: Any) -> Iterator[tuple[str, int, xr.Dataset]]:
    for chain, (start, seed) in enumerate(preset.of_chains(name)):
        yield start, seed, run.isel(chain=chain)


# Mean and half of the range over seeds: their bins are the same.
def _curves(
    runs: dict[tuple[str, str, int], xr.Dataset],
    chains: dict[tuple[str, str], xr.Dataset],
    preset: Any,
) -> list[dict[str, Any]]:
    found = defaultdict(list)
    for (image, arm, _), run in runs.items():
        for picture in ("iterate", "moving", "average"):
            for x, y in zip(*curve(run, picture), strict=True):
                found[image, arm, picture, float(x)].append(y)
    for (image, name), run in chains.items():
        for start, _, one in _each_chain(name, run, preset):
            for x, y in zip(*curve(one, "iterate"), strict=True):
                found[image, name, f"iterate, {start}", float(x) + preset.spent(start)].append(y)
    return [
        {
            "image": Path(image).stem,
            "arm": arm,
            "picture": picture,
            "iteration": f"{x:.4g}",
            "seeds": len(values),
            "psnr": f"{np.mean(values):.2f}",
            "spread": f"{np.ptp(values) / 2:.2f}",
        }
        for (image, arm, picture, x), values in found.items()
    ]


def _draw_images(
    preset: Any,
    runs: dict[tuple[str, str, int], xr.Dataset],
    chains: dict[tuple[str, str], xr.Dataset],
    path: Path,
) -> None:
    columns = 2
    figure, axes = panels(columns * len(preset.images), columns=columns, width=3.9, height=2.7)
    for row, image in enumerate(preset.images):
        stem = Path(image).stem
        iterate, average = axes[columns * row : columns * (row + 1)]
        for arm, colour in SHOWN.items():
            _draw_arm(iterate, runs, image, arm, "iterate", PALETTE[colour])
            # as published: a moving average of SGD, the mean of the draws of the recipe
            picture = "average" if arm == "recipe" else "moving"
            _draw_arm(average, runs, image, arm, picture, PALETTE[colour])
        if (image, CORRECT) in chains:
            for start, seed, one in _each_chain(CORRECT, chains[image, CORRECT], preset):
                if start == "stopped":
                    name = f"{_words(CORRECT)}, from a stopped fit" if seed == 0 else None
                    _draw_chain(iterate, one, "iterate", name, preset.spent(start))
                    _draw_chain(average, one, "average", None, preset.spent(start))
        iterate.set_title(f"{stem}: iterate")
        average.set_title(f"{stem}: average")
        for panel in (iterate, average):
            panel.set_xscale("log")
            panel.set_xlabel("gradient evaluations")
        iterate.set_ylabel("PSNR (dB)")
        _one_scale([iterate, average])
    shared_legend(figure, axes[0])
    save_figure(figure, path)


def _draw_chain(panel: Any, one: xr.Dataset, picture: str, name: str | None, spent: int) -> None:
    x, y = curve(one, picture)
    panel.plot(x + spent, y, color="0.25", lw=1.3, ls="--", label=name)


def _words(name: str) -> str:
    method, temperature, *more = name.split()
    said = {"input": "input noise", "cold": "from initialisations"}
    return ", ".join([f"{method.upper()} at T = {temperature}", *(said[each] for each in more)])


def draw_chains(preset: Any, chains: dict[tuple[str, str], xr.Dataset], path: Path) -> None:
    """Draw PSNR and misfit of every chain against all gradients that it and its start took."""
    names = list(dict.fromkeys(name for _, name in chains))
    images = [image for image in preset.images if any(of == image for of, _ in chains)]
    if not images:
        return
    figure, axes = panels(2 * len(images), columns=2, width=3.9, height=2.9)
    for row, image in enumerate(images):
        scores, misfits = axes[2 * row : 2 * row + 2]
        for (of, name), run in chains.items():
            if of != image:
                continue
            colour = PALETTE[names.index(name) % len(PALETTE)]
            for start, seed, one in _each_chain(name, run, preset):
                label = _words(name) if (row, seed) == (0, 0) else None
                dashes = "--" if start == "overfitted" else "-"
                kwargs = {"color": colour, "lw": 1.2, "ls": dashes}
                x, y = curve(one, "iterate")
                x = x + preset.spent(start)
                scores.plot(x, y, label=label if dashes == "-" else None, **kwargs)
                misfits.plot(x, curve(one, "misfit")[1], **kwargs)
        stem = Path(image).stem
        scores.set_title(f"{stem}: iterate")
        scores.set_ylabel("PSNR (dB)")
        misfits.set_title(f"{stem}: misfit / noise variance")
        misfits.axhline(1, color="0.6", lw=0.8)
        for panel in (scores, misfits):
            panel.set_xscale("log")
            panel.set_xlabel("gradient evaluations, with those of the start")
        _one_scale([scores])
        misfits.set_ylim(0, 2)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    save_figure(figure, path)


def _draw_arm(
    panel: Any,
    runs: dict[tuple[str, str, int], xr.Dataset],
    image: str,
    arm: str,
    picture: str,
    colour: str,
) -> None:
    of = [run for (i, a, _), run in runs.items() if (i, a) == (image, arm)]
    for number, run in enumerate(of):
        x, y = curve(run, picture)
        if len(y):
            panel.plot(x, y, color=colour, lw=1.3, label=arm if number == 0 else None)


def _one_scale(axes: list[Any]) -> None:
    lines = [line for panel in axes for line in panel.get_lines()]
    if lines:
        high = max(float(np.nanmax(line.get_ydata())) for line in lines)
        for panel in axes:
            panel.set_ylim(high - 11, high + 0.5)


def _draw_ablations(preset: Any, runs: dict[tuple[str, str, int], xr.Dataset], path: Path) -> None:
    figure, axes = panels(3, columns=3, width=3.6, height=3.0)
    image = preset.images[0]
    names = ("recipe", *preset.ablations)
    for number, arm in enumerate(names):
        colour = PALETTE[number % len(PALETTE)]
        _draw_arm(axes[0], runs, image, arm, "iterate", colour)
        _draw_arm(axes[1], runs, image, arm, "average", colour)
        of = [run for (i, a, _), run in runs.items() if (i, a) == (image, arm)]
        for run in of[:1]:
            axes[2].plot(run["look"] + 1, run["norm"], color=colour)
    titles = (f"{Path(image).stem}: iterate", "mean of draws", "norm of 4-D tensors")
    for panel, title in zip(axes, titles, strict=True):
        panel.set_xscale("linear" if title == titles[1] else "log")
        panel.set_title(title)
        panel.set_xlabel("gradient evaluations")
    axes[2].set_yscale("log")
    axes[0].set_ylabel("PSNR (dB)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    save_figure(figure, path)
