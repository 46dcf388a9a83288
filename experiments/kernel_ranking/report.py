"""Tables and figure from what was measured and predicted."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from dipkernels.plotting.style import save_figure
from dipkernels.theory import rank_agreement
from experiments.kernel_ranking.baselines import COLUMNS, baselines
from experiments.kernel_ranking.ranking import plot_ranking
from experiments.kernel_ranking.setting import PRIORS, Preset

MOST_PANELS = 6
NEARLY = 0.8
LEFT_OUT = ("vit-conv3",)  # of the figure: crippled on grey images, and far from all others
CEILING = "a fit from another initialisation"  # what no score can be expected to exceed by much
NOT_DB = ("response's slope", "half-power frequency", "parameters")
OF_DB = ("rms", "rms_centred", "offset")
Values = dict[tuple[str, str], float]  # by image and prior, the mean over seeds


def write_report(preset: Preset, output: Path) -> str:
    """Write ``correlations.csv``, ``baselines.csv``, ``transfer.csv`` and ``ranking.png``.

    Parameters
    ----------
    preset : Preset
        Gives the order of priors and images.
    output : Path
        Folder of the CSVs.

    Returns
    -------
    str
        The table of correlations.
    """
    measured = _read(output / "measured.csv", "peak_psnr")[""]
    kernels: dict[str, Values] = {}
    by_seed = [_read(output / "measured.csv", "peak_psnr", seed)[""] for seed in ("0", "1")]
    for name in ("scores.csv", "after.csv"):
        if (output / name).exists():
            kernels |= _read(output / name, "psnr")
    rows = []
    pairs = {kernel: (values, measured) for kernel, values in kernels.items()}
    pairs[CEILING] = by_seed[1], by_seed[0]
    # on the images and priors of the kernels after steps, and of them alone
    few = kernels.get(f"after {preset.after[0]}, this noise", {})
    for kernel in ("initialisation, this noise", "covariance's Wiener filter"):
        same = {key: value for key, value in kernels.get(kernel, {}).items() if key in few}
        pairs[f"{kernel} (where measured after steps)"] = same, measured
    for kernel, (values, truth) in pairs.items():
        images, priors = _complete(values, truth, preset)
        if len(priors) < 3:
            continue
        found = rank_agreement(*(_array(x, images, priors) for x in (values, truth)))
        numbers = {
            k: "" if kernel in NOT_DB and k in OF_DB else f"{v:.3f}" for k, v in found.attrs.items()
        }
        rows.append(
            {"kernel": kernel, "images": len(images), "priors": len(priors)}
            | numbers
            | {
                f"spearman_{i}": f"{s:.3f}"
                for i, s in zip(images, found.spearman.values, strict=True)
            }
        )
    columns = list(dict.fromkeys(key for row in rows for key in row))
    _write(output / "correlations.csv", columns, rows)
    _write_baselines(preset, output, kernels, measured)
    _write_transfer(preset, output, kernels, measured)
    _draw(preset, output, kernels, measured)
    return "\n".join(
        f"{r['kernel']:45s} {r['images']}x{r['priors']:2d}  {r['spearman_mean']} "
        f"[{r['spearman_lower']}, {r['spearman_upper']}]  tau {r['kendall_mean']}  "
        f"rms {r['rms']} / {r['rms_centred']} dB"
        for r in rows
    )


def _read(path: Path, column: str, seed: str | None = None) -> dict[str, Values]:
    """Read values by kernel, averaged over seeds, or of one."""
    found: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if seed not in (None, row["seed"]):
                continue
            key = row["image"], row["prior"]
            found[row.get("kernel", "")][key].append(float(row[column]))
    means = {k: {key: float(np.mean(v)) for key, v in each.items()} for k, each in found.items()}
    return means or {"": {}}


def _complete(
    values: Values, measured: Values, preset: Preset
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Images with a value for nearly as many priors as any, and the priors that have all these."""
    both = values.keys() & measured.keys()
    counts = [sum((i, p) in both for p in preset.priors) for i in preset.images]
    enough = max(1.0, NEARLY * max(counts))
    images = tuple(i for i, n in zip(preset.images, counts, strict=True) if n >= enough)
    if not images:
        return (), ()
    return images, tuple(p for p in preset.priors if all((i, p) in both for i in images))


def _array(values: Values, images: tuple[str, ...], priors: tuple[str, ...]) -> np.ndarray:
    return np.array([[values[i, p] for p in priors] for i in images])


def _write(path: Path, columns: list[str], rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _write_baselines(
    preset: Preset, output: Path, kernels: dict[str, Values], measured: Values
) -> None:
    """Compare the score with one bit, without what is crippled here."""
    values = kernels.get("initialisation", {})
    images, priors = _complete(values, measured, preset)
    priors = tuple(name for name in priors if name not in LEFT_OUT)
    if len(priors) < 3:
        return
    found = baselines(priors, *(_array(x, images, priors) for x in (values, measured)))
    _write(output / "baselines.csv", list(COLUMNS), list(found))


def _write_transfer(
    preset: Preset, output: Path, kernels: dict[str, Values], measured: Values
) -> None:
    """How well the score on one image ranks the fits of another."""
    values = kernels.get("initialisation", {})
    images, priors = _complete(values, measured, preset)
    if len(priors) < 3:
        return
    scores, truth = (_array(x, images, priors) for x in (values, measured))
    rows: list[dict[str, object]] = []
    # the measured peaks themselves, too: what a perfect score on another image would reach
    for kind, lines in (("", scores), ("measured on ", truth)):
        for reference, line in zip(images, lines, strict=True):
            found = rank_agreement(np.tile(line, (len(images), 1)), truth, resamples=2).spearman
            each = zip(images, found.values, strict=True)
            rows.append({"scored on": kind + reference} | {i: f"{s:.3f}" for i, s in each})
    _write(output / "transfer.csv", ["scored on", *images], rows)


PANELS = (
    "initialisation",
    "initialisation, Adam's metric at 1",
    "initialisation, Adam's metric at 30",
    "after 30, this noise",
    "after 30, Adam's metric, this noise",
    "covariance's Wiener filter",
)


def _draw(preset: Preset, output: Path, kernels: dict[str, Values], measured: Values) -> None:
    chosen = [k for k in PANELS if k in kernels] or list(kernels)[:MOST_PANELS]
    panels = []
    for kernel in chosen:
        images, priors = _complete(kernels[kernel], measured, preset)
        priors = tuple(name for name in priors if name not in LEFT_OUT)
        if len(priors) < 3:
            continue
        scores, truth = (_array(x, images, priors) for x in (kernels[kernel], measured))
        agreement = rank_agreement(scores, truth).attrs
        title = (
            f"{kernel}: {agreement['spearman_mean']:.2f} "
            f"[{agreement['spearman_lower']:.2f}, {agreement['spearman_upper']:.2f}]"
        )
        panels.append((title, priors, scores, truth))
    if panels:
        families = {name: family for name, (family, _) in PRIORS.items()}
        save_figure(plot_ranking(panels, families), output / "ranking.png")
