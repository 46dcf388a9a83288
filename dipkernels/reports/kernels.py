"""The page of kernels: their spectra and responses, and the images that are learned first."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.spread import spread_note
from dipkernels.errors import InvalidInputError
from dipkernels.plotting.spectra import LEAST, SINGLE, counted
from dipkernels.plotting.style import styles
from dipkernels.reports import charts
from dipkernels.reports.charts import Curve, network_lines
from dipkernels.reports.citing import reopening
from dipkernels.reports.frames import Frames, plane, sheets
from dipkernels.reports.interactive import Chart, cells_of, head_of, panes_fields
from dipkernels.reports.pages import write_page
from dipkernels.reports.table import HALF_POWER, PARAMETERS, PRIOR, Column, Row, csv_table, plain
from dipkernels.reports.verdicts import kernels_verdict
from dipkernels.storage.netcdf import write_text
from dipkernels.storage.runs import RunFolder

if TYPE_CHECKING:
    from bokeh.plotting import figure

PAGE, TABLE = "index.html", "kernels.csv"
Kernels = Mapping[str, xr.Dataset]
RELATIVE = "eigenvalue / largest"
RESPONSE = (
    "Which frequencies are fitted first",
    "Mean of |J^T e_k|^2 over rings of spatial frequency, relative to the lowest ring. A falling "
    "curve is a low-pass filter; a flat one has no preference. Circles: half-power frequency. "
    "Bands: two standard errors over the probes.",
)
EIGENVALUES = (
    "Eigenvalues by their index",
    "In descending order. Dotted line with shading: eigenvalues that the smallest quadrature nodes "
    "represent together; more Lanczos steps would separate them. Circles: leading eigenpairs. "
    "Bands: range over the probes. Grey: below the resolution of single precision.",
)
DENSITY = (
    "Density of the eigenvalues",
    "Eigenvalues per decade, by stochastic Lanczos quadrature, with bands of two standard errors "
    "over the probes. Below about 1e-4 the quadrature resolves only the total.",
)
REOPENED = """print(run.table())  # the numbers of the table, as a pandas.DataFrame
kernel = run.stages[{stage!r}]  # an xarray.Dataset
figure = dipkernels.plotting.plot_eigenvalues({{{name!r}: kernel}})"""


@checked
def kernels_page(folder: RunFolder, kernels: Mapping[str, xr.Dataset]) -> Path:
    """Write the page of the kernels of one network or of several.

    Parameters
    ----------
    folder : RunFolder
        That holds the results, as ``kernel`` or ``NAME/kernel``.
    kernels : mapping of str to Dataset
        Results of the stage ``kernel``, by name, in the order of the table.

    Returns
    -------
    Path
        Of ``index.html``, which works without the other files and without a network; beside it is
        ``kernels.csv``.

    Raises
    ------
    InvalidInputError
        If there are none, or one isn't a result of that stage.

    Notes
    -----
    The page takes at most 6 MB: of large images pixels of the eigenvectors are averaged, and the
    page says so.

    Examples
    --------
    >>> import tempfile
    >>> from dipkernels import networks
    >>> from dipkernels.stages.registry import find_stage
    >>> from dipkernels.stages.subject import Subject
    >>> from dipkernels.storage import RunFolder
    >>> prior = networks.create("deep-decoder", image_size=8, width=6, upsamplings=1)
    >>> kernel = find_stage("kernel").run(Subject(prior), steps=6, probes=2)
    >>> with tempfile.TemporaryDirectory() as path:
    ...     folder = RunFolder.open(Path(path) / "run", {"prior": "deep-decoder"})
    ...     page = kernels_page(folder, {"deep-decoder": kernel})
    ...     page.name, page.stat().st_size < 6e6
    ('index.html', True)
    """
    for name, kernel in kernels.items():
        if "eigenvector" not in kernel or "response" not in kernel or "nodes" not in kernel:
            raise InvalidInputError(
                f"'{name}' isn't the result of the stage 'kernel', which "
                f"find_stage('kernel').run(...) makes; it has {[str(n) for n in kernel.data_vars]}"
            )
    if not kernels:
        raise InvalidInputError("there is no kernel to show: give at least one result")
    rows = [kernel_row(name, kernel) for name, kernel in kernels.items()]
    write_text(csv_table(rows), folder.path / TABLE)
    first, one = next(iter(kernels)), len(kernels) == 1
    stage = "kernel" if folder.file("kernel").exists() else f"{first}/kernel"
    return write_page(
        folder,
        PAGE,
        "results",
        title=f"kernel of {first}" if one else f"kernels of {len(kernels)} networks",
        question=f"Which images does {first} learn first?"
        if one
        else "Which images does each network learn first?",
        sound=True,
        verdict=kernels_verdict(rows),
        lead=_lead(folder, kernels),
        columns=head_of(COLUMNS),
        rows=[{"cells": cells_of(COLUMNS, row)} for row in rows],
        notes=[spread_note()],
        python=reopening(folder.path, REOPENED.format(stage=stage, name=first)),
        figures=[],
        **_moving(kernels),
    )


def kernel_row(name: str, kernel: xr.Dataset) -> Row:
    """Condense a kernel to the numbers of its row."""
    found = counted(kernel)
    last, told = max(found.told - 1, 0), found.told < len(found.index)
    half = float(kernel.half_power_frequency)
    return {
        "prior": name,
        "parameters": int(kernel.parameters),
        "largest_eigenvalue": float(kernel.largest_eigenvalue),
        "trace": float(kernel.trace),
        "trace_standard_error": float(kernel.trace_standard_error),
        "largest_share": float(kernel.largest_eigenvalue) / float(kernel.trace),
        "half_power_frequency": half if half < 1 else float("inf"),
        "placed": float(found.index[last]) if told else float(found.index[-1]),
        "placed_down_to": float(found.relative[last]) if told else 0.0,
        "eigenvalues": int(np.prod(kernel.eigenvector.shape[1:])),
        "matvecs": int(kernel.matvecs),
    }


def _lead(folder: RunFolder, kernels: Kernels) -> str:
    kernel = next(iter(kernels.values()))
    asked: dict[str, Any] = folder.settings or {}
    channels, *size = kernel.eigenvector.shape[1:]
    words = f"{channels} channel{'' if channels == 1 else 's'}"
    probes, steps = kernel.nodes.shape
    return (
        f"Tangent kernels at initialisation, of images of {'x'.join(map(str, size))} pixels with "
        f"{words}: {probes} probes of {steps} Lanczos steps, seed {asked.get('seed', 0)}, on "
        f"{kernel.attrs.get('device', 'cpu')}."
    )


def _moving(kernels: Kernels) -> dict[str, Any]:
    looks, names = styles(kernels), list(kernels)
    found = sheets({name: _eigenvectors(k) for name, k in kernels.items()}, {})
    return {
        **panes_fields(
            found,
            names,
            looks,
            kernel_charts(kernels, looks, marked=True),
            word="rank",
            said=lambda name, frames: _said(kernels[name], frames.iterations),
            chosen=names[:2],
            parts=[("image", "eigenvector")],
            signed=True,
            start=1,
        ),
        "charts_first": True,
        "moving": "Leading eigenvectors",
        "needs": "Curves and eigenvectors need JavaScript.",
        "frames_note": _note(found.block),
    }


def _eigenvectors(kernel: xr.Dataset) -> Frames:
    vectors = np.stack([plane(each) for each in kernel.eigenvector.values])
    largest = np.abs(vectors).max(axis=tuple(range(1, vectors.ndim)), keepdims=True)
    return Frames(kernel["rank"].values.tolist(), vectors / np.where(largest > 0, largest, 1))


def _said(kernel: xr.Dataset, ranks: Sequence[int]) -> list[str]:
    largest = float(kernel.largest_eigenvalue)
    return [
        f"eigenvalue {float(one.top_eigenvalue):.3g}, {float(one.top_eigenvalue) / largest:.2g} of "
        f"the largest; within {float(one.residual):.1g}"
        for one in (kernel.sel(rank=rank) for rank in ranks)
    ]


def _note(block: int) -> str:
    said = (
        "The images that gradient descent learns first, scaled to their largest value. Grey is 0; "
        'the sign is arbitrary. "Within" is the distance to the nearest exact eigenvalue; '
        "eigenvectors whose eigenvalues lie closer together than that may be mixed."
    )
    return said + (f" {block}x{block} pixels are averaged." if block > 1 else "")


def kernel_charts(kernels: Kernels, looks: charts.Looks, *, marked: bool = False) -> list[Chart]:
    """Make the charts of kernels: response, eigenvalues with a mark at a rank, density."""
    eigenvalues = partial(_eigenvalues, kernels, looks, marked=marked)
    return [
        responses_chart(kernels, looks),
        ("chart-eigenvalues", EIGENVALUES, eigenvalues),
        ("chart-density", DENSITY, partial(_densities, kernels, looks)),
    ]


def responses_chart(kernels: Kernels, looks: charts.Looks) -> Chart:
    """Make the chart of responses: of kernels, or of cards that have one."""
    return "chart-response", RESPONSE, partial(_responses, kernels, looks)


def relative_curve(
    frequency: xr.DataArray,
    values: xr.DataArray,
    errors: xr.DataArray | None,
    rings: tuple[Any, Any] = ((), ()),
) -> Curve:
    """Take what is over rings of frequency relative to the lowest, with two standard errors."""
    varying = frequency.values > 0
    scale = float(values.values[varying][0]) or 1.0
    x, y = frequency.values[varying], values.values[varying] / scale
    if errors is None:
        return Curve(x, y, rings=rings)
    error = 2 * np.nan_to_num(errors.values[varying]) / scale
    return Curve(x, y, np.maximum(y - error, 0.1 * y), y + error, rings=rings)


def _responses(kernels: Kernels, looks: charts.Looks) -> "figure":
    found = {}
    for name, kernel in kernels.items():
        half = float(kernel.half_power_frequency)
        rings = ((half,), (0.5,)) if half < 1 else ((), ())
        errors = kernel.response_standard_error
        found[name] = relative_curve(kernel.frequency, kernel.response, errors, rings)
    words = ("spatial frequency (cycles per pixel)", "response / lowest ring")
    plot = network_lines(found, looks, *words, x_axis_type="log", y_axis_type="log")
    charts.frequency_ticks(plot)
    return plot


def _eigenvalues(kernels: Kernels, looks: charts.Looks, *, marked: bool) -> "figure":
    found, least = {}, 1.0
    for name, kernel in kernels.items():
        each = counted(kernel)
        pairs = kernel.top_eigenvalue.values / float(kernel.largest_eigenvalue)
        rings = (np.arange(1, len(pairs) + 1), pairs)
        ends = (each.low, each.high, True, each.told, rings)
        found[name] = Curve(each.index, each.relative, *ends)
        least = min(least, float(each.relative[each.some].min(initial=1.0)))
    most = max(float(each.x[-1]) for each in found.values())
    log = {"x_axis_type": "log", "y_axis_type": "log"}
    ranges = {"x_range": (0.8, 1.5 * most), "y_range": (least / 3, 2)}
    plot = network_lines(found, looks, "index of the eigenvalue", RELATIVE, **log, **ranges)
    charts.shaded(plot, top=SINGLE)
    if marked:  # by a slider through ranks
        charts.mark(plot)
    return plot


def _densities(kernels: Kernels, looks: charts.Looks) -> "figure":
    found = {}
    for name, kernel in kernels.items():
        error = 2 * kernel.standard_error.fillna(0).values
        density, x = kernel.density.values, kernel.eigenvalue.values / kernel.largest_eigenvalue
        low = np.maximum(density - error, LEAST)
        at = density > LEAST
        found[name] = Curve(x[at], density[at], low[at], (density + error)[at])
    log = {"x_axis_type": "log", "y_axis_type": "log"}
    return network_lines(found, looks, RELATIVE, "eigenvalues per decade", **log)


def _trace(row: Row) -> str:
    return f"{row['trace']:.3g} +- {row['trace_standard_error']:.1g}"


COLUMNS: Sequence[Column] = (
    PRIOR,
    PARAMETERS,
    HALF_POWER,
    plain(
        "largest eigenvalue",
        "largest_eigenvalue",
        ".3g",
        "Largest eigenvalue of the kernel at initialisation.",
    ),
    Column("trace", "trace", _trace, "Sum of all eigenvalues, with its error over the probes."),
    plain(
        "largest / trace",
        "largest_share",
        ".1%",
        "Share of the trace in the largest eigenvalue: 1 over the number of eigenvalues if all are "
        "equal.",
    ),
    plain(
        "eigenvalues placed",
        "placed",
        ",.0f",
        "Approximate number of eigenvalues above the smallest quadrature node; of the others only "
        "the number and the sum are known.",
    ),
    plain(
        "down to",
        "placed_down_to",
        ".1e",
        "Value of that node, relative to the largest eigenvalue.",
    ),
    plain("products", "matvecs", ",d", "Matrix-vector products with the kernel."),
)
