"""Curves of a page, by Bokeh: values under the pointer, marks that a slider moves."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from bokeh.plotting import figure

MOST = 500  # points of a curve
Datasets = Mapping[str, xr.Dataset]
Looks = Mapping[str, dict[str, Any]]
DASHES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dotdash"}


def library() -> str:
    """Text of Bokeh's script, so that a page needs no network."""
    from bokeh.resources import Resources

    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)


def as_json(plot: "figure") -> Any:
    """Describe a chart for `Bokeh.embed.embed_item`."""
    from bokeh.embed import json_item

    return json.loads(json.dumps(json_item(plot)))


def learning_chart(
    fits: Datasets, looks: Looks, peaks: Mapping[str, float], measured: float | None
) -> "figure":
    """Draw PSNR against iterations: to clean, to measured, what a kernel predicts at its peak."""
    plot = _figure("iteration", "PSNR (dB)", x_axis_type="log")
    end = max(fit.sizes["iteration"] for fit in fits.values())
    _iteration_ticks(plot, end)
    tops = [*peaks.values(), *([] if measured is None else [measured])]
    for name, fit in fits.items():
        one = fit.isel(image=0) if "image" in fit.dims else fit
        look = {"line_color": looks[name]["color"], "line_width": 2}
        known = "psnr_clean" in one
        keep = np.ravel(one.peak_iteration) if known else np.empty(0)
        at = thinned(fit.sizes["iteration"], keep)
        if known:
            clean = one.psnr_clean.sel(region=one.score_region)
            tops.append(float(clean.where(np.isfinite(clean)).max()))
            _curve(plot, at, clean, (name, "to clean"), look)
        faint = look | {"line_alpha": 0.55, "line_dash": "dashed"}
        _curve(plot, at, one.psnr_noisy, (name, "to measured"), faint)
    for name, peak in peaks.items():
        look = {"line_color": looks[name]["color"], "line_dash": "dotted", "line_width": 1.5}
        _level(plot, end, peak, (name, "predicted peak"), look)
    if measured is not None:
        _level(plot, end, measured, ("measured image", "to clean"), {"line_color": "gray"})
    if "psnr_clean" in next(iter(fits.values())):  # the PSNR to what is fitted exactly has no end
        plot.y_range.update(end=max(tops) + 4)
    _hover(plot, [("", "@name, @what"), ("iteration", "@iteration"), ("PSNR", "@psnr{0.00} dB")])
    _mark(plot)
    return plot


# The axis is of iteration + 1, which has a logarithm at the first.
def _iteration_ticks(plot: "figure", end: int) -> None:
    from bokeh.models import FixedTicker

    iterations = [0, *(n * 10**power for power in range(9) for n in (1, 3) if n * 10**power < end)]
    plot.xaxis.ticker = FixedTicker(ticks=[i + 1 for i in iterations])
    plot.xaxis.major_label_overrides = {i + 1: f"{i:,}" for i in iterations}


# Of several seeds the mean, in a band from the lowest to the highest.
def _curve(
    plot: "figure", at: np.ndarray, curve: xr.DataArray, words: tuple[str, str], look: Any
) -> None:
    values = curve.isel(iteration=at)
    if "seed" in values.dims:
        ends = {"x": at + 1, "low": values.min("seed").values, "high": values.max("seed").values}
        shade = {"fill_color": look["line_color"], "fill_alpha": 0.15}
        band = plot.varea("x", "low", "high", source=_source(ends), **shade)
        band.tags = [words[0]]
        values = values.mean("seed")
    name, what = ([word] * len(at) for word in words)
    source = {"iteration": at, "x": at + 1, "psnr": values.values, "name": name, "what": what}
    plot.line("x", "psnr", source=_source(source), **look).tags = [words[0]]


def _level(plot: "figure", end: int, psnr: float, words: tuple[str, str], look: Any) -> None:
    name, what = ([word] * 2 for word in words)
    source = {"x": [1, end], "psnr": [psnr] * 2, "iteration": ["any"] * 2}
    tag = "reference" if look["line_color"] == "gray" else words[0]
    words_of = {"name": name, "what": what}
    plot.line("x", "psnr", source=_source(source | words_of), **look).tags = [tag]


def frequency_chart(
    frequency: np.ndarray, power: Mapping[str, np.ndarray], looks: Looks, noise: np.ndarray | None
) -> "figure":
    """Draw the power of the error at each spatial frequency; a page moves it through iterations."""
    plot = _figure("spatial frequency (cycles per pixel)", "power of the error", y_axis_type="log")
    shown = [values for values in (*power.values(), noise) if values is not None]
    positive = np.concatenate([np.ravel(values) for values in shown])
    positive = positive[positive > 0]
    if len(positive):
        plot.y_range.update(start=positive.min() / 1.5, end=positive.max() * 1.5)
    for name, values in power.items():
        source = _source(
            {"frequency": frequency, "power": values[-1], "name": [name] * len(frequency)}
        )
        look = {"line_color": looks[name]["color"], "line_width": 2, "name": "at-iteration"}
        plot.line("frequency", "power", source=source, **look).tags = [name]
    if noise is not None:
        source = {"frequency": frequency, "power": noise, "name": ["measured"] * len(frequency)}
        look = {"line_color": "gray", "line_width": 1.5, "line_dash": "dashed"}
        plot.line("frequency", "power", source=_source(source), **look).tags = ["reference"]
    _hover(plot, [("", "@name"), ("frequency", "@frequency{0.000}"), ("power", "@power{0.00e+0}")])
    return plot


def network_lines(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], looks: Looks, x: str, y: str, **axes: str
) -> "figure":
    """Draw one curve a network."""
    plot = _figure(x, y, **axes)
    for name, (at, values) in curves.items():
        source = _source({"x": at, "y": values, "name": [name] * len(at)})
        look = {"line_color": looks[name]["color"], "line_dash": DASHES[looks[name]["ls"]]}
        plot.line("x", "y", source=source, line_width=2, **look).tags = [name]
    _hover(plot, [("", "@name"), (x, "@x{0.000 a}"), (y, "@y{0.000 a}")])
    return plot


def thinned(count: int, keep: Any = (), most: int = MOST) -> np.ndarray:
    """Choose iterations that a logarithmic axis tells apart, and some that must be there."""
    if count <= most:
        return np.arange(count)
    spaced = np.rint(np.geomspace(1, count, most)).astype(int) - 1
    return np.union1d(np.union1d(spaced, [0, count - 1]), np.asarray(keep, dtype=int)).astype(int)


def _figure(x: str, y: str, **axes: Any) -> "figure":
    from bokeh import plotting

    plot = plotting.figure(
        height=340,
        sizing_mode="stretch_width",
        x_axis_label=x,
        y_axis_label=y,
        tools="xpan,box_zoom,reset,save",
        active_drag=None,
        background_fill_color=None,
        border_fill_color=None,
        **axes,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.min_border_right = 12
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.major_label_text_font_size = "12px"
    return plot


def _source(columns: Mapping[str, Any]) -> Any:
    from bokeh.models import ColumnDataSource

    as_drawn = {
        key: np.where(np.isfinite(values), values, np.nan).astype(np.float32)
        if isinstance(values, np.ndarray) and values.dtype.kind == "f"
        else values
        for key, values in columns.items()
    }
    return ColumnDataSource(as_drawn)


def _hover(plot: "figure", said: list[tuple[str, str]]) -> None:
    from bokeh.models import HoverTool, Line
    from bokeh.models.renderers import GlyphRenderer

    drawn = [each for each in plot.renderers if isinstance(each, GlyphRenderer)]
    lines: list[Any] = [each for each in drawn if isinstance(each.glyph, Line)]
    plot.add_tools(HoverTool(tooltips=said, line_policy="nearest", renderers=lines))


def _mark(plot: "figure") -> None:
    from bokeh.models.annotations import Span

    line = Span(location=1, dimension="height", line_color="#888888", line_dash="dashed")
    line.name = "mark"
    plot.add_layout(line)
