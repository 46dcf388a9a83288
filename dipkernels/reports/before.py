"""The page of a covariance: what a network makes before it learns, and tests of theory."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.plotting.initialisation import REJECTED
from dipkernels.plotting.style import styles
from dipkernels.reports import charts
from dipkernels.reports.charts import Curve, network_lines
from dipkernels.reports.citing import reopening
from dipkernels.reports.frames import Frames, plane, sheets
from dipkernels.reports.interactive import Chart, cells_of, drawing_words, head_of, panes_fields
from dipkernels.reports.kernels import relative_curve
from dipkernels.reports.pages import write_page
from dipkernels.reports.table import Column, Row, plain
from dipkernels.reports.verdicts import LEVEL, covariance_verdict
from dipkernels.storage.runs import RunFolder

if TYPE_CHECKING:
    from bokeh.plotting import figure

PAGE = "index.html"
DRAWS, LAGS = "draws", "lags"
MOST = 0.999  # of the values of all draws lie between black and white
RADIAL = (
    "Covariance by the length of the lag",
    "Mean over all pairs of pixels at that distance, with a band of two standard errors over "
    "initialisations.",
)
SIGNAL = (
    "Covariance over the lag",
    "Mean over all pairs of pixels at that lag, with a band of two standard errors over "
    "initialisations.",
)
POWER = (
    "Power spectrum",
    "Mean power over rings of spatial frequency, relative to the lowest ring, with a band of two "
    "standard errors over initialisations. White noise would be flat.",
)
TESTS = (
    "Tests",
    "Each hypothesis as a normal score; to the right of the dashed line a test rejects it at 5 %.",
)
REOPENED = """found = run.stages["covariance"]  # an xarray.Dataset
print(found.p_value.to_series())
figure = dipkernels.plotting.plot_covariance(found)"""


@checked
def covariance_page(folder: RunFolder, found: xr.Dataset, *, name: str = "network") -> Path:
    """Write the page of a covariance at initialisation.

    Parameters
    ----------
    folder : RunFolder
        That holds the result as its stage ``covariance``.
    found : xarray.Dataset
        Of that stage: from `dipkernels.kernels.covariance`, with ``draws`` and ``power``.
    name : str
        Of the network.

    Returns
    -------
    Path
        Of ``index.html``, which works without the other files and without a network.

    Raises
    ------
    InvalidInputError
        If it isn't such a result.

    Examples
    --------
    >>> import tempfile
    >>> from dipkernels import networks
    >>> from dipkernels.stages.registry import find_stage
    >>> from dipkernels.stages.subject import Subject
    >>> from dipkernels.storage import RunFolder
    >>> prior = networks.create("deep-decoder", image_size=8, width=6, upsamplings=1)
    >>> found = find_stage("covariance").run(Subject(prior), samples=8)
    >>> with tempfile.TemporaryDirectory() as path:
    ...     folder = RunFolder.open(Path(path) / "run", {"command": "covariance"})
    ...     page = covariance_page(folder, found, name="deep-decoder")
    ...     page.name, page.stat().st_size < 6e6
    ('index.html', True)
    """
    if not {"draws", "power", "p_value", "radial_kernel"} <= found.variables.keys():
        raise InvalidInputError(
            "expected a result of the stage 'covariance', which find_stage('covariance').run(...) "
            f"makes; it has {[str(n) for n in found.data_vars]}"
        )
    rows: list[Row] = [
        {"test": str(test), "z": float(z), "p": float(p)}
        for test, z, p in zip(found.test.values, found.z.values, found.p_value.values, strict=True)
    ]
    value, error = (float(found.attrs[f"excess_kurtosis{end}"]) for end in ("", "_standard_error"))
    tests = [(str(row["test"]), float(str(row["p"]))) for row in rows]
    sound, verdict = covariance_verdict(name, tests, (value, error))
    return write_page(
        folder,
        PAGE,
        "results",
        title=f"images of {name} at initialisation",
        question=f"Which images does {name} make before it learns?",
        sound=sound,
        verdict=verdict,
        lead=_lead(folder, found, name),
        columns=head_of(COLUMNS),
        rows=[{"cells": cells_of(COLUMNS, row)} for row in rows],
        notes=[
            f"Standard errors and tests are over {int(found.samples)} initialisations of one seed. "
            "Of several tests at 5 % each, some reject by chance."
        ],
        python=reopening(folder.path, REOPENED),
        figures=[],
        **_moving(found, name),
    )


def _lead(folder: RunFolder, found: xr.Dataset, name: str) -> str:
    asked: dict[str, Any] = folder.settings or {}
    channels, *size = found.draws.shape[1:]
    return (
        f"{name}, {int(found.parameters):,} parameters: images of {'x'.join(map(str, size))} "
        f"pixels with {channels} channel{'' if channels == 1 else 's'}, {int(found.samples)} "
        f"initialisations, codes {asked.get('codes', 'fixed')}, centring "
        f"{asked.get('centre', 'none')}, seed {asked.get('seed', 0)}, on "
        f"{asked.get('device', 'cpu')}. Variance of a pixel "
        f"{float(found.second_moment.mean()):.4g} on average; over pixels it varies by "
        f"{float(found.variance_spread):.1%}."
    )


def _moving(found: xr.Dataset, name: str) -> dict[str, Any]:
    draws = np.stack([plane(each) for each in found.draws.values]).astype(np.float32)
    frames = {DRAWS: Frames([1 + i for i in range(len(draws))], draws)}
    ends = np.quantile(draws, [1 - MOST, MOST])
    ranges = {DRAWS: (float(ends[0]), float(max(ends[1], ends[0] + 1e-12)))}
    beside, notes = {}, {}
    if found.kernel.ndim > 1:
        beside[LAGS] = plane(found.kernel.values[None]).astype(np.float32)
        low, high = float(beside[LAGS].min()), float(beside[LAGS].max())
        ranges[LAGS] = (low, high)
        notes[LAGS] = f"lag 0 in the middle; black {low:.3g}, white {high:.3g}"
    encoded = sheets(frames, beside, own=ranges)
    looks = styles([name])
    low, high = ranges[DRAWS]
    return {
        **panes_fields(
            encoded,
            [name],
            looks,
            _charts(found, name, looks),
            word="draw",
            said=lambda _, kept: [_spread(draws[i - 1]) for i in kept.iterations],
            chosen=[DRAWS, *beside],
            titles={LAGS: "covariance over the lag"} if beside else {},
            notes=notes,
            ranges=ranges,
            parts=[("image", "image")],
            start=1,
        ),
        "moving": "Draws",
        "needs": "Draws and curves need JavaScript.",
        "frames_note": " ".join(
            [
                f"Each draw is another initialisation; black is {low:.3g}, white {high:.3g}.",
                *drawing_words({}, encoded.block),
            ]
        ),
    }


def _spread(draw: np.ndarray) -> str:
    return f"mean {draw.mean():.3g}, standard deviation {draw.std():.3g}"


def _charts(found: xr.Dataset, name: str, looks: charts.Looks) -> list[Chart]:
    lag, words = ("lag_x", SIGNAL) if found.kernel.ndim == 1 else ("radius", RADIAL)
    kernel = "kernel" if found.kernel.ndim == 1 else "radial_kernel"
    y, error = found[kernel].values, 2 * found[f"{kernel}_standard_error"].values
    curve = Curve(found[lag].values, y, y - error, y + error)
    axes = ("lag (pixels)", "covariance")
    lags = partial(network_lines, {name: curve}, looks, *axes)
    return [
        ("chart-lags", words, lags),
        ("chart-power", POWER, partial(_power, found, name, looks)),
        ("chart-tests", TESTS, partial(_tests, found)),
    ]


def _power(found: xr.Dataset, name: str, looks: charts.Looks) -> "figure":
    curve = relative_curve(found.frequency, found.power, found.power_standard_error)
    words = ("spatial frequency (cycles per pixel)", "power / lowest ring")
    plot = network_lines({name: curve}, looks, *words, x_axis_type="log", y_axis_type="log")
    charts.frequency_ticks(plot)
    return plot


def _tests(found: xr.Dataset) -> "figure":
    from bokeh.models import HoverTool

    names = [str(test) for test in found.test.values]
    scores = np.clip(found.z.values.astype(float), -1, 9)
    said = [f"p = {float(p):.3g}" for p in found.p_value.values]
    plot = charts.blank("normal score (9: or more)", "", y_range=names[::-1], x_range=(-1.2, 9.2))
    columns = charts.source({"name": names, "score": scores, "said": said})
    colour = styles(["tests"])["tests"]["color"]
    bars = plot.hbar(y="name", right="score", height=0.6, source=columns, color=colour)
    bars.tags = ["tests"]
    charts.upright(plot, REJECTED)
    plot.add_tools(HoverTool(tooltips=[("@name", "@said")], renderers=[bars]))
    return plot


COLUMNS: Sequence[Column] = (
    plain("hypothesis", "test", "s", "What a stationary, isotropic, Gaussian field would be."),
    plain(
        "normal score", "z", ".2f", "How far the test is from it; above 1.645 it rejects at 5 %."
    ),
    plain("p-value", "p", ".3g", "Probability of such a difference if the hypothesis holds."),
    Column(
        f"at {LEVEL:.0%}",
        "p",
        lambda row: "rejected" if float(str(row["p"])) < LEVEL else "not rejected",
        "What one such test says; one in twenty rejects a hypothesis that holds.",
    ),
)
