"""The page of one fit: its verdict, every stopping rule, and its images through the iterations."""

from pathlib import Path

import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.reports.citing import reopening
from dipkernels.reports.frames import first_run
from dipkernels.reports.interactive import fits_fields
from dipkernels.reports.pages import picture_words, write_page
from dipkernels.reports.table import measured_psnr
from dipkernels.reports.verdicts import fit_verdict
from dipkernels.stopping import stopping_panel
from dipkernels.stopping.panel import panel_row
from dipkernels.storage.runs import RunFolder, is_interrupted
from dipkernels.tasks import Task

PAGE = "index.html"
COLUMNS = (
    ("stopping rule", "A star marks rules that know the clean image."),
    ("stopped at", "The iteration at which the rule would have ended the fit."),
    ("chosen", "The iteration whose image the rule returns."),
    ("PSNR dB", "PSNR of that image to the clean one."),
    ("regret dB", "How much less that is than the highest PSNR of the fit."),
    ("remark", "Why a rule doesn't apply."),
)
REOPENED = """result = run.stages["fit"]  # an xarray.Dataset; white is 1
print(dipkernels.fitting.summary(result))
images = dipkernels.fitting.snapshot_images(result)  # over (snapshot, channel, y, x)"""


@checked
def fit_page(folder: RunFolder, result: xr.Dataset, task: Task | None = None) -> Path:
    """Write the page of a fit.

    Parameters
    ----------
    folder : RunFolder
        That holds the result as its stage ``fit``.
    result : xarray.Dataset
        From `dipkernels.fit`, of one image or several, of which the first is shown.
    task : Task, optional
        That was fitted: the page then says what the measured image itself scores.

    Returns
    -------
    Path
        Of ``index.html``, which works without the other files and without a network.

    Notes
    -----
    The page takes at most 6 MB: where images don't fit, some are left out, then pixels averaged,
    and the page says so. Its images are the result's snapshots; a fit that kept none is shown by
    its first, best and last.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from dipkernels import fit, networks, tasks
    >>> from dipkernels.storage import RunFolder
    >>> prior = networks.create("deep-decoder", image_size=16, width=8)
    >>> task = tasks.denoise(torch.full((3, 16, 16), 0.5))
    >>> with tempfile.TemporaryDirectory() as path:
    ...     folder = RunFolder.open(Path(path) / "run", {"prior": "deep-decoder"})
    ...     result = folder.stage("fit", lambda: fit(prior, task, iterations=5))
    ...     page = fit_page(folder, result, task)
    ...     page.name, page.stat().st_size < 6e6
    ('index.html', True)
    """
    baseline = measured_psnr(task)
    sound, verdict = fit_verdict(result, task)
    name = str(result.prior)
    image = str((folder.settings or {}).get("image", "an image"))
    return write_page(
        folder,
        PAGE,
        "results",
        title=f"{name} fitted to {image}",
        sound=sound,
        verdict=verdict,
        question=f"What did {name} learn, and when?",
        lead=_lead(result, image),
        baseline=None if baseline is None else f"The measured image itself: {baseline:.2f} dB.",
        warning=_interrupted(result),
        columns=[
            {"title": title, "meaning": meaning, "words": title in ("stopping rule", "remark")}
            for title, meaning in COLUMNS
        ],
        rows=_rules(result, baseline),
        notes=[],
        python=reopening(folder.path, REOPENED),
        figures=[],
        **fits_fields({name: result}, measured=baseline),
    )


def _interrupted(result: xr.Dataset) -> str:
    if not is_interrupted(result):
        return ""
    return "This fit is not complete: it was interrupted. The same command continues it."


def _lead(result: xr.Dataset, image: str) -> str:
    one = first_run(result).final
    words = picture_words(
        one.shape,
        task=str(result.task),
        image=image,
        noise_sigma=result.attrs.get("noise_sigma"),
    )
    return (
        f"{words}; {result.optimiser}, {result.sizes['iteration'] - 1} iterations, "
        f"{result.attrs.get('parameters', 0):,} parameters, on {result.attrs.get('device', 'cpu')}."
        f" Scores are PSNR to the clean image in dB, over the region '{result.score_region}'."
    )


def _rules(result: xr.Dataset, baseline: float | None) -> list[dict[str, object]]:
    panel = stopping_panel(result)
    panel = panel.isel(image=0) if "image" in panel.dims else panel
    rows: list[dict[str, object]] = []
    for i in range(panel.sizes["rule"]):
        one = panel.isel(rule=i)
        keys = [float(one[key].mean()) for key in ("stopped", "chosen", "psnr", "regret")]
        texts = panel_row(one)
        sorts = [texts[0], *("" if key != key else key for key in keys), texts[-1]]
        rows.append({"cells": [{"text": t, "sort": s} for t, s in zip(texts, sorts, strict=True)]})
    if baseline is not None:
        texts = ("measured image", "-", "-", f"{baseline:.2f}", "-", "fitted by no network")
        rows.append({"cells": [{"text": text, "sort": ""} for text in texts], "fixed": True})
    return rows
