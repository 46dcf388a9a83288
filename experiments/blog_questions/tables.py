"""Tables of the fits: every one, then question by question."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from experiments.blog_questions.variants import QUESTIONS, VARIANTS

BELOW = 3.0  # dB below the peak: "first"


@dataclass(frozen=True)
class Results:
    """What was computed: fits by variant, image and seed, predictions by variant."""

    fits: dict[tuple[str, str, int], xr.Dataset]
    kernels: dict[str, xr.Dataset]


def write_tables(results: Results, bases: list[dict[str, object]], output: Path) -> None:
    """Write all CSVs.

    Parameters
    ----------
    results : Results
        Of the run.
    bases : list of dict
        Rows of ``bases.csv``.
    output : Path
        Folder.
    """
    fits = fit_table(results)
    for name, table in {
        "fits": fits,
        "summary": summary(fits),
        "stopping": stopping_table(results),
        "first": first_table(results),
        "bases": pd.DataFrame(bases),
    }.items():
        table.to_csv(output / f"{name}.csv", index=False, float_format="%.5g")


def fit_table(results: Results) -> pd.DataFrame:
    """Tabulate the fits.

    Parameters
    ----------
    results : Results
        Of the run.

    Returns
    -------
    DataFrame
        One row a fit and image.
    """
    rows = []
    for (name, image, seed), found in results.fits.items():
        kernel = results.kernels.get(name)
        foreseen = np.nan if kernel is None else float(kernel.psnr.sel(image=image))
        # runs of earlier versions have kept the whole curve
        to_noisy = float(found.psnr_noisy.isel(iteration=-1, missing_dims="ignore"))
        for part in found.part.values:
            curve = found.psnr_clean.sel(part=part)
            best = int(curve.values.argmax())
            rows.append(
                {
                    "variant": name,
                    # the two networks of one image under two draws count as fits of that image
                    "image": part if "+" in image else image,
                    "part": part,
                    "seed": seed,
                    "peak": float(curve[best]),
                    "peak iteration": int(curve.iteration[best]),
                    "end": float(curve[-1]),
                    "end to noisy": to_noisy,
                    "iterations": found.attrs["iterations"],
                    "noisy": found.attrs["noisy_psnr"],
                    "predicted": foreseen,
                    "sensitivity": float(found.get("sensitivity", np.nan)),
                    "parameters": found.attrs["parameters"],
                    "seconds": found.attrs["seconds"],
                }
            )
    return pd.DataFrame(rows)


def summary(fits: pd.DataFrame) -> pd.DataFrame:
    """Hold variants against each other, fit by fit: same image, same noise.

    Parameters
    ----------
    fits : DataFrame
        From `fit_table`.

    Returns
    -------
    DataFrame
        One row a question and variant. ``gain`` is the mean difference of the peaks, with its
        least and largest.
    """
    rows = []
    for question, (_, pairs) in QUESTIONS.items():
        for name, against in pairs:
            one, other = fits[fits.variant == name], fits[fits.variant == against]
            if one.empty or other.empty:
                continue
            both = one.merge(other, on=["image", "seed"], suffixes=("", " other"))
            gain = both.peak - both["peak other"]
            end = both.end - both["end other"]
            foreseen = one.predicted.mean() - other.predicted.mean()
            rows.append(
                {
                    "question": question,
                    "variant": name,
                    "against": against,
                    "peak": one.peak.mean(),
                    "peak spread": one.groupby("image").peak.std().mean(),
                    "peak iteration": one["peak iteration"].mean(),
                    "iterations": one.iterations.iloc[0],
                    "end": one.end.mean(),
                    "gain": gain.mean(),
                    "least gain": gain.min(),
                    "largest gain": gain.max(),
                    "gain at the end": end.mean(),
                    "predicted": one.predicted.mean(),
                    "predicted gain": foreseen,
                    "sensitivity": one.sensitivity.mean(),
                    "fits": len(both),
                }
            )
    return pd.DataFrame(rows)


def stopping_table(results: Results) -> pd.DataFrame:
    """Tabulate what each stopping rule would have chosen.

    Parameters
    ----------
    results : Results
        Of the run.

    Returns
    -------
    DataFrame
        One row a fit with held-out pixels and rule; ``regret`` in dB.
    """
    rows = []
    for (name, image, seed), found in results.fits.items():
        if "rule" not in found.coords:
            continue
        best = float(found.chosen_psnr.sel(rule="oracle"))
        for rule in found.rule.values:
            psnr = float(found.chosen_psnr.sel(rule=rule))
            rows.append(
                {
                    "variant": name,
                    "image": image,
                    "seed": seed,
                    "rule": rule,
                    "iteration": int(found.chosen_iteration.sel(rule=rule)),
                    "psnr": psnr,
                    "regret": best - psnr,
                }
            )
    return pd.DataFrame(rows)


def first_table(results: Results) -> pd.DataFrame:
    """Tabulate what is fitted first: early, 3 dB below the peak, and at the peak.

    Parameters
    ----------
    results : Results
        Of the run.

    Returns
    -------
    DataFrame
        One row a fit and moment: Gini's index of the output in both bases, and its distance to the
        nearest approximation of the clean image of each family, as a PSNR.
    """
    rows = []
    for (name, image, seed), found in results.fits.items():
        if "snapshot" not in found.coords:
            continue
        whole = found.psnr_area.sel(area="whole").values
        peak = int(np.nanargmax(whole))
        early = int(np.flatnonzero(whole >= whole[peak] - BELOW)[0])
        for moment, at in {"early": early, "peak": peak}.items():
            one = found.isel(snapshot=at)
            near = {f"near {f}": -20 * np.log10(float(one.distance.sel(family=f))) for f in
                    found.family.values}  # fmt: skip
            gini = {f"gini {b}": float(one.gini.sel(basis=b)) for b in found.basis.values}
            areas = {f"psnr {a}": float(one.psnr_area.sel(area=a)) for a in found.area.values}
            rows.append(
                {
                    "variant": name,
                    "title": VARIANTS[name].title,
                    "image": image,
                    "seed": seed,
                    "moment": moment,
                    "iteration": int(one.snapshot),
                    **near,
                    **gini,
                    **areas,
                }
            )
    return pd.DataFrame(rows)
