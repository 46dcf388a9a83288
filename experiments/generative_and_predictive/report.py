"""Tables of both biases, whether they go together, and the figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dipkernels.plotting import save_figure
from dipkernels.plotting.style import PALETTE, panels, shared_legend
from dipkernels.theory import rank_agreement
from experiments.kernel_ranking.setting import PRIORS

GENERATIVE = {"gain": "peak PSNR - noisy, dB", "roll-off": "kernel's roll-off, power of frequency"}
PREDICTIVE = {
    "faces": "accuracy, faces (chance 1/2)",
    "textures": "accuracy, textures (chance 1/3)",
    "invariance": "invariance to a shift by 4 px",
}
# It normalises with the statistics of its one image, and can't do without: chance in all tasks.
ONE_IMAGE = "self-attention"
Found = dict[str, xr.Dataset]


def write_report(found: Found, output: Path) -> None:
    """Write all tables and the figure.

    Parameters
    ----------
    found : dict of str to Dataset
        All measurements, by name.
    output : Path
        Folder.
    """
    fits, encoders = fit_table(found), encoder_table(found)
    both = joined(fits, encoders, found)
    tables = {
        "fits": fits,
        "encoders": encoders,
        "biases": both,
        "correlations": correlations(fits, both),
    }
    for name, table in tables.items():
        table.to_csv(output / f"{name}.csv", index=False, float_format="%.4g")
    save_figure(plot_biases(both), output / "biases.png")


def fit_table(found: Found) -> pd.DataFrame:
    """Tabulate the fits.

    Parameters
    ----------
    found : dict of str to Dataset
        All measurements.

    Returns
    -------
    DataFrame
        One row a fit.
    """
    return pd.DataFrame(
        [
            {**{k: fit.attrs[k] for k in ("prior", "image", "seed", "iterations", "noisy")}}
            | {name: float(value) for name, value in fit.data_vars.items()}
            | {"seconds": fit.attrs["seconds"]}
            for key, fit in found.items()
            if key.startswith("fit-")
        ]
    )


def encoder_table(found: Found) -> pd.DataFrame:
    """Tabulate the encoders.

    Parameters
    ----------
    found : dict of str to Dataset
        All measurements.

    Returns
    -------
    DataFrame
        One row an encoder, as registered or without normalisation.
    """
    rows = []
    for key, one in found.items():
        if not key.startswith("encoder-"):
            continue
        row: dict[str, object] = {k: one.attrs[k] for k in ("prior", "normalisation")}
        for kind in one.kind.values:
            for task in one.task.values:
                row[f"{task} {kind}"] = float(one.accuracy.sel(kind=kind, task=task))
                row[f"{task} {kind} error"] = float(one.error.sel(kind=kind, task=task))
        for shift in one["shift"].values:
            row[f"invariance {shift}"] = float(one.invariance.sel(shift=shift))
            row[f"invariance {shift} error"] = float(one.invariance_error.sel(shift=shift))
        rows.append(row)
    return pd.DataFrame(rows)


def joined(fits: pd.DataFrame, encoders: pd.DataFrame, found: Found) -> pd.DataFrame:
    """Put both biases side by side.

    Parameters
    ----------
    fits, encoders : DataFrame
        The tables.
    found : dict of str to Dataset
        For the kernels' responses.

    Returns
    -------
    DataFrame
        One row a prior. The encoder is that without normalisation where there is one; its
        accuracy that of the random features' kernel (``nngp``). Decoders have no encoder: NaN.
    """
    # images differ in what can be gained; the spread is over seeds and images without that
    encoding = fits[fits.prior.isin(encoders.prior)]
    level = encoding.groupby("image").gain.mean()
    fits = fits.assign(centred=fits.gain - fits.image.map(level))
    rows = []
    for name in fits.prior.unique():
        mine = fits[fits.prior == name]
        response = found[f"kernel-{name}"]
        row = {
            "prior": name,
            "family": PRIORS[name][0],
            "gain": mine.gain.mean(),
            "gain error": mine.centred.std(),
            "peak iteration": mine.peak_iteration.mean(),
            "iterations": mine.iterations.iloc[0],
            "gap": mine["gap"].mean(),
            "delta-mse": mine.delta_mse.mean(),
            "roll-off": float(response.attrs["roll_off"]),
            "roll-off error": float(response.attrs["roll_off_standard_error"]),
        }
        best = encoders[encoders.prior == name]
        plain = best[best.normalisation == "none"]
        best = plain if len(plain) else best
        for task, column in (("faces", "faces nngp"), ("textures", "textures nngp"),
                             ("invariance", "invariance 4")):  # fmt: skip
            row[task] = float(best[column].iloc[0]) if len(best) else np.nan
            row[f"{task} error"] = float(best[f"{column} error"].iloc[0]) if len(best) else np.nan
        for task in ("faces", "textures"):
            row[f"{task} ntk"] = float(best[f"{task} ntk"].iloc[0]) if len(best) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def correlations(fits: pd.DataFrame, both: pd.DataFrame) -> pd.DataFrame:
    """Correlate the ranks of both biases over all encoders.

    Parameters
    ----------
    fits, both : DataFrame
        The tables.

    Returns
    -------
    DataFrame
        Spearman's correlation of each predictive measure with each generative one, with 95 %
        intervals of a bootstrap over priors (and images). Empty for fewer than 3 encoders.
    """
    known = both[both[[*PREDICTIVE, "roll-off"]].notna().all(axis=1)]
    if len(known) < 3:
        return pd.DataFrame(columns=["predictive", "generative", "without", "spearman"])
    gains = fits.groupby(["image", "prior"]).gain.mean().unstack()[list(known.prior)].to_numpy()
    targets = {
        "gain": gains,
        "roll-off": known["roll-off"].to_numpy()[None],
    }
    rows = []
    for measure in (*PREDICTIVE, "faces ntk", "textures ntk"):
        for name, target in targets.items():
            for without in ("", ONE_IMAGE):
                kept = (known.prior != without).to_numpy()
                score = np.broadcast_to(known[measure].to_numpy(), target.shape)
                agreement = rank_agreement(score[:, kept].copy(), target[:, kept].copy())
                rows.append(
                    {
                        "predictive": measure,
                        "generative": name,
                        "without": without,
                        "encoders": int(kept.sum()),
                        "spearman": agreement.attrs["spearman_mean"],
                        "lower": agreement.attrs["spearman_lower"],
                        "upper": agreement.attrs["spearman_upper"],
                    }
                )
    return pd.DataFrame(rows)


def plot_biases(both: pd.DataFrame) -> Figure:
    """Draw generative against predictive bias.

    Parameters
    ----------
    both : DataFrame
        From `joined`.

    Returns
    -------
    Figure
        A row a generative measure, a column a predictive one. Decoders are ticks at the left.
    """
    figure, axes = panels(6, columns=3, width=3.9, height=3.4)
    families = list(dict.fromkeys(both[both.faces.notna()].family))
    for number, panel in enumerate(axes):
        y, x = list(GENERATIVE)[number // 3], list(PREDICTIVE)[number % 3]
        for family, colour in zip(families, PALETTE, strict=False):
            mine = both[both.family == family]
            panel.errorbar(
                mine[x],
                mine[y],
                xerr=mine[f"{x} error"],
                yerr=mine[f"{y} error"],
                fmt="o",
                ms=4,
                lw=0.7,
                color=colour,
                label=family,
            )
        panel.set_xlabel(PREDICTIVE[x])
        panel.set_ylabel(GENERATIVE[y])
        alone = both[both[x].isna()]
        left = panel.get_xlim()[0]
        label = "decoder: no encoder"
        panel.plot(
            [left] * len(alone), alone[y], ">", color="black", ms=4, clip_on=False, label=label
        )
        panel.set_xlim(left=left)
        _name_points(panel, both[both[x].notna()], x, y)
    shared_legend(figure, axes[0])
    return figure


# Above, below, left or right of its point, wherever fewest other names and points are.
def _name_points(panel: Axes, rows: pd.DataFrame, x: str, y: str) -> None:
    (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
    taken = [((a - left) / (right - left), (b - low) / (high - low))
             for a, b in zip(rows[x], rows[y], strict=True)]  # fmt: skip
    offsets = [(0.015, 0.01), (0.015, -0.045), (-0.015, 0.01), (-0.015, -0.045)]
    boxes = [(a - 0.01, b - 0.02, a + 0.01, b + 0.02) for a, b in taken]
    for (a, b), name in zip(list(taken), rows.prior, strict=True):
        wide = 0.019 * len(name)
        options = [
            (a + dx if dx > 0 else a + dx - wide, b + dy, dx > 0) for dx, dy in offsets
        ]  # fmt: skip
        costs = [_overlap((u, v, u + wide, v + 0.04), boxes) for u, v, _ in options]
        u, v, right = options[int(np.argmin(costs))]
        boxes.append((u, v, u + wide, v + 0.04))
        start, align = (u, "left") if right else (u + wide, "right")
        panel.text(start, v, name, transform=panel.transAxes, fontsize=6.5, ha=align)


def _overlap(box: tuple[float, ...], others: list[tuple[float, ...]]) -> float:
    outside = max(0.0, -box[0]) + max(0.0, box[2] - 1) + max(0.0, -box[1]) + max(0.0, box[3] - 1)
    shared = sum(
        max(0.0, min(box[2], o[2]) - max(box[0], o[0]))
        * max(0.0, min(box[3], o[3]) - max(box[1], o[1]))
        for o in others
    )
    return outside + 100 * shared
