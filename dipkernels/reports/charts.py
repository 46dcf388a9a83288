"""Curves of a page, by Bokeh: values under the pointer, marks that a slider moves."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from bokeh.plotting import figure

MOST = 500  # points of a curve
FLOOR = 1e-30  # where a shaded area ends, below any axis
FREQUENCIES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # cycles per pixel
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
    plot = blank("iteration", "PSNR (dB)", x_axis_type="log")
    end = max(fit.sizes["iteration"] for fit in fits.values())
    iteration_ticks(plot, end)
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
    mark(plot)
    return plot


def iteration_ticks(plot: "figure", end: int) -> None:
    """Label an axis of iteration + 1, which has a logarithm at the first, by iterations."""
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
        band = plot.varea("x", "low", "high", source=source(ends), **shade)
        band.tags = [words[0]]
        values = values.mean("seed")
    name, what = ([word] * len(at) for word in words)
    found = {"iteration": at, "x": at + 1, "psnr": values.values, "name": name, "what": what}
    plot.line("x", "psnr", source=source(found), **look).tags = [words[0]]


def _level(plot: "figure", end: int, psnr: float, words: tuple[str, str], look: Any) -> None:
    name, what = ([word] * 2 for word in words)
    found = {"x": [1, end], "psnr": [psnr] * 2, "iteration": ["any"] * 2}
    tag = "reference" if look["line_color"] == "gray" else words[0]
    words_of = {"name": name, "what": what}
    plot.line("x", "psnr", source=source(found | words_of), **look).tags = [tag]


def frequency_chart(
    frequency: np.ndarray, power: Mapping[str, np.ndarray], looks: Looks, noise: np.ndarray | None
) -> "figure":
    """Draw the power of the error at each spatial frequency; a page moves it through iterations."""
    plot = blank("spatial frequency (cycles per pixel)", "power of the error", y_axis_type="log")
    shown = [values for values in (*power.values(), noise) if values is not None]
    positive = np.concatenate([np.ravel(values) for values in shown])
    positive = positive[positive > 0]
    if len(positive):
        plot.y_range.update(start=positive.min() / 1.5, end=positive.max() * 1.5)
    for name, values in power.items():
        found = source(
            {"frequency": frequency, "power": values[-1], "name": [name] * len(frequency)}
        )
        look = _line(looks[name]) | {"line_width": 2, "name": "at-iteration"}
        plot.line("frequency", "power", source=found, **look).tags = [name]
    if noise is not None:
        measured = {"frequency": frequency, "power": noise, "name": ["measured"] * len(frequency)}
        look = {"line_color": "gray", "line_width": 1.5, "line_dash": "dashed"}
        plot.line("frequency", "power", source=source(measured), **look).tags = ["reference"]
    _hover(plot, [("", "@name"), ("frequency", "@frequency{0.000}"), ("power", "@power{0.00e+0}")])
    return plot


@dataclass(frozen=True)
class Curve:
    """A line of a network, with a band of its error; from a point on it isn't resolved."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    lying: bool = False  # the band is one of x, not of y
    told: int | None = None  # points that are resolved; all, by default
    rings: tuple[Any, Any] = ((), ())  # points that are marked: x and y


def network_lines(
    curves: Mapping[str, Curve], looks: Looks, x: str, y: str, **axes: Any
) -> "figure":
    """Draw one curve a network; what isn't resolved is dotted, and shaded down to the floor."""
    plot = blank(x, y, **axes)
    for name, curve in curves.items():
        look = _line(looks[name])
        drawn: list[Any] = []
        if curve.low is not None:
            ends = source({"at": curve.y if curve.lying else curve.x,
                            "low": curve.low, "high": curve.high})  # fmt: skip
            draw = plot.harea if curve.lying else plot.varea
            order = ("low", "high", "at") if curve.lying else ("at", "low", "high")
            band = {"fill_color": look["line_color"], "fill_alpha": 0.15}
            drawn.append(draw(*order, source=ends, **band))
        told = len(curve.x) if curve.told is None else curve.told
        parts = [(slice(None, told), "", look, 2.0)]
        if told < len(curve.x):
            rest = slice(max(told - 1, 0), None)
            dotted = look | {"line_dash": "dotted"}
            parts.append((rest, "not resolved", dotted, 1.5))
            below = {"x": curve.x[rest], "y": curve.y[rest], "floor": 0 * curve.x[rest] + FLOOR}
            fill = {"fill_color": look["line_color"], "fill_alpha": 0.07}
            drawn.append(plot.varea("x", "floor", "y", source=source(below), **fill))
        for part, what, how, wide in parts:
            at, values = curve.x[part], curve.y[part]
            words = {"name": [name] * len(at), "what": [what] * len(at)}
            found = source({"x": at, "y": values, **words})
            drawn.append(plot.line("x", "y", source=found, line_width=wide, **how))
        if len(curve.rings[0]):
            rings = source({"x": np.asarray(curve.rings[0]), "y": np.asarray(curve.rings[1])})
            drawn.append(plot.scatter("x", "y", source=rings, size=8, fill_alpha=0.0,
                                      line_color=look["line_color"], line_width=1.5))  # fmt: skip
        for each in drawn:
            each.tags = [name]
    _hover(plot, [("", "@name @what"), (x, "@x{0.000 a}"), (y, "@y{0.00e+0}")])
    return plot


def _line(look: Mapping[str, Any]) -> dict[str, Any]:
    return {"line_color": look["color"], "line_dash": DASHES[look["ls"]]}


def frequency_ticks(plot: "figure") -> None:
    """Put few plain numbers on a logarithmic axis of frequencies."""
    from bokeh.models import FixedTicker

    plot.xaxis.ticker = FixedTicker(ticks=list(FREQUENCIES))
    plot.xaxis.major_label_overrides = {each: f"{each:g}" for each in FREQUENCIES}


def shaded(plot: "figure", **ends: Any) -> None:
    """Shade in grey what is below a ``top``, or before a ``right``."""
    from bokeh.models.annotations import BoxAnnotation

    plot.add_layout(BoxAnnotation(fill_color="#888888", fill_alpha=0.15, **ends))


def thinned(count: int, keep: Any = (), most: int = MOST) -> np.ndarray:
    """Choose iterations that a logarithmic axis tells apart, and some that must be there."""
    if count <= most:
        return np.arange(count)
    spaced = np.rint(np.geomspace(1, count, most)).astype(int) - 1
    return np.union1d(np.union1d(spaced, [0, count - 1]), np.asarray(keep, dtype=int)).astype(int)


def spaced(count: int, most: int) -> np.ndarray:
    """Choose places that are evenly spread, the first and the last among them."""
    return np.unique(np.rint(np.linspace(0, count - 1, min(count, most))).astype(int))


def blank(x: str, y: str, **axes: Any) -> "figure":
    """Make a figure as all of a page are."""
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


def source(columns: Mapping[str, Any]) -> Any:
    """Make a source of a chart: in single precision, without infinities."""
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


def mark(plot: "figure") -> None:
    """Draw an upright line that the slider of a page moves."""
    upright(plot, 1.0, name="mark")


def upright(plot: "figure", at: float, **more: Any) -> None:
    """Draw a dashed upright line."""
    from bokeh.models.annotations import Span

    look: dict[str, Any] = {"line_color": "#888888", "line_dash": "dashed"}
    plot.add_layout(Span(location=at, dimension="height", **look, **more))
