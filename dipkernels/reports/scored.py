"""The page of scores: networks ranked by the peak that their kernels predict."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.spread import spread_note
from dipkernels.errors import InvalidInputError
from dipkernels.plotting.style import styles
from dipkernels.reports import charts
from dipkernels.reports.citing import reopening
from dipkernels.reports.interactive import cells_of, head_of, shared_fields
from dipkernels.reports.pages import lead_of, write_page
from dipkernels.reports.table import PARAMETERS, PRIOR, Column, Row, measured_psnr, plain
from dipkernels.reports.verdicts import scores_verdict
from dipkernels.stages.registry import find_stage
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task

if TYPE_CHECKING:
    from bokeh.plotting import figure

PAGE = "index.html"
LONGEST = 22  # characters of a name beside the chart
CHART = (
    "Predicted peaks",
    "Large points: the predicted peak, hollow where the products don't resolve it. Bars: the band "
    "of its numerics. Small points: single initialisations. Dashed: the measured image itself.",
)
REOPENED = """print(run.table())  # the numbers of the table, as a pandas.DataFrame
found = run.stages[{stage!r}]  # an xarray.Dataset
figure = dipkernels.plotting.plot_scores({{{name!r}: found}})"""


@checked
def score_page(folder: RunFolder, scores: Mapping[str, xr.Dataset], task: Task) -> Path:
    """Write the page of a ranking.

    Parameters
    ----------
    folder : RunFolder
        That holds the results, as ``NAME/score``.
    scores : mapping of str to Dataset
        From `dipkernels.score`, by name.
    task : Task
        That was scored.

    Returns
    -------
    Path
        Of ``index.html``, which works without the other files and without a network.

    Raises
    ------
    InvalidInputError
        If there is none, or one isn't of `dipkernels.score`.

    Examples
    --------
    >>> import tempfile
    >>> from dipkernels import images, networks, score, tasks
    >>> from dipkernels.storage import RunFolder
    >>> prior = networks.create("deep-decoder", image_size=8, channels=1, width=8)
    >>> task = tasks.denoise(images.load("camera", size=8))
    >>> with tempfile.TemporaryDirectory() as path:
    ...     folder = RunFolder.open(Path(path) / "run", {"command": "score"})
    ...     page = score_page(folder, {"deep-decoder": score(prior, task)}, task)
    ...     page.name, page.stat().st_size < 6e6
    ('index.html', True)
    """
    if not scores or not all("degrees_of_freedom" in found for found in scores.values()):
        raise InvalidInputError("expected at least one result of dipkernels.score, by name")
    order = sorted(scores, key=lambda name: -float(scores[name].score))
    rows = [_row(name, scores[name]) for name in order]
    baseline, seeds = measured_psnr(task), max(int(str(row["seeds"])) for row in rows)
    beside: list[Row] = [] if baseline is None else [{"prior": "measured image", "score": baseline}]
    looks = styles(order)
    draw = partial(_peaks, {name: scores[name] for name in order}, looks, baseline)
    return write_page(
        folder,
        PAGE,
        "results",
        title=f"predicted peaks of {len(rows)} network{'' if len(rows) == 1 else 's'}",
        question="Which network will restore the image best, as its kernel predicts?",
        sound=baseline is None or float(str(rows[0]["score"])) > baseline,
        verdict=scores_verdict(rows, baseline),
        lead=lead_of(folder, task)
        + " Scores are the highest PSNR of gradient flow to the clean image, in dB, predicted from "
        "the kernel at initialisation without a fit.",
        baseline=None if baseline is None else f"The measured image itself: {baseline:.2f} dB.",
        columns=head_of(COLUMNS),
        rows=[
            *({"cells": cells_of(COLUMNS, row)} for row in rows),
            *({"cells": cells_of(COLUMNS, row), "fixed": True} for row in beside),
        ],
        notes=[spread_note(seeds)],
        python=reopening(folder.path, REOPENED.format(stage=f"{order[0]}/score", name=order[0])),
        figures=[],
        needs="A chart of the predicted peaks needs JavaScript.",
        **shared_fields(order, looks, [("chart-scores", CHART, draw)], {}),
    )


def _row(name: str, found: xr.Dataset) -> Row:
    row: Row = {"prior": name, "seeds": 1, **find_stage("score").row_of(found)}
    return row | {"seconds": float(found.seconds.sum())}


def _peaks(
    scores: Mapping[str, xr.Dataset], looks: charts.Looks, baseline: float | None
) -> "figure":
    from bokeh.models import HoverTool

    # A label takes a phone's width from the chart; no two are alike.
    labels = {
        name: name if len(name) <= LONGEST else f"{name[: LONGEST - 4]}… {number}"
        for number, name in enumerate(scores, start=1)
    }
    plot = charts.blank("predicted peak PSNR (dB)", "", y_range=[*labels.values()][::-1])
    plot.height = max(220, 80 + 28 * len(scores))
    for name, found in scores.items():
        colour = looks[name]["color"]
        low, high = (float(found[f"psnr_{end}"].mean()) for end in ("lower", "upper"))
        value, resolved = float(found.score), bool(found.resolved.all())
        said = f"{'' if resolved else 'about '}{value:.2f} dB [{low:.2f}, {high:.2f}]"
        place: dict[str, Any] = {"name": [name], "label": [labels[name]], "said": [said]}
        ends = charts.source({"low": np.array([low]), "high": np.array([high]), **place})
        several = {"x": found.psnr.mean("image").values, "label": [labels[name]] * found.seed.size}
        one = charts.source({"x": np.array([value]), **place})
        wide: dict[str, Any] = {"line_color": colour, "line_width": 6, "line_alpha": 0.3}
        bar = plot.segment("low", "label", "high", "label", source=ends, **wide)
        small: dict[str, Any] = {"size": 5, "fill_color": colour, "fill_alpha": 0.5}
        dots = plot.scatter("x", "label", source=charts.source(several), line_color=None, **small)
        large: dict[str, Any] = {"size": 10, "fill_color": colour, "fill_alpha": float(resolved)}
        point = plot.scatter("x", "label", source=one, line_color=colour, line_width=2, **large)
        plot.add_tools(HoverTool(tooltips=[("@name", "@said")], renderers=[point, bar]))
        for each in (bar, dots, point):
            each.tags = [name]
    if baseline is not None:
        charts.upright(plot, baseline)
        values = [float(v) for each in scores.values() for v in np.ravel(each.psnr_lower)]
        tops = [float(v) for each in scores.values() for v in np.ravel(each.psnr_upper)]
        low, high = min(baseline, *values), max(baseline, *tops)
        plot.x_range.update(start=low - 0.05 * (high - low), end=high + 0.05 * (high - low))
    return plot


def _peak(row: Row) -> str:
    if "score_lower" not in row:
        return f"{row['score']:.2f}"
    spread = float(str(row.get("score_spread", np.nan)))
    over = f" +- {spread:.2f}" if np.isfinite(spread) else ""
    return f"{'' if row['score_resolved'] else '~ '}{row['score']:.2f}{over}"


def _band(row: Row) -> str:
    if "score_lower" not in row:
        return "-"
    return f"[{row['score_lower']:.2f}, {row['score_upper']:.2f}]"


COLUMNS: Sequence[Column] = (
    PRIOR,
    PARAMETERS,
    Column(
        "predicted peak dB",
        "score",
        _peak,
        "Highest PSNR of gradient flow, predicted from the kernel; mean and standard deviation "
        "over initialisations. ~: too few products to resolve it.",
    ),
    Column("band dB", "score_lower", _band, "Numerical error of that peak, not its spread."),
    plain(
        "directions",
        "degrees_of_freedom",
        ".1f",
        "How many directions of image space are learned by then.",
    ),
    plain("products", "matvecs", ",d", "Matrix-vector products with the kernel, or their cost."),
    plain("seconds", "seconds", ".1f", "For all initialisations together."),
)
