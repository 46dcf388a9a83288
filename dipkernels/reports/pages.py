"""What all pages share: a template, the settings of a run folder, and figures within the page."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from dipkernels.plotting.style import save_figures
from dipkernels.reports.charts import library
from dipkernels.reports.citing import citation
from dipkernels.storage.netcdf import write_text
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task

HERE = Path(__file__).parent


def write_page(
    folder: RunFolder,
    file: str,
    template: str,
    *,
    record: dict[str, Any] | None = None,
    templates: Sequence[Path] = (),
    **fields: object,
) -> Path:
    """Fill a template, of here or of other folders, with fields and the folder's settings."""
    stored = folder.record if record is None else dict(record)
    settings = stored.pop("settings", {})
    # Whatever a user or a file has named is escaped: these alone are taken as they are.
    own = {"css": _read("page.css"), "script": _read("page.js")}
    if "data" in fields:
        own["library"] = library()
    shared = {name: Markup(text) for name, text in own.items()} | {"cite": citation()}
    loader = jinja2.FileSystemLoader([HERE, *templates])
    surroundings = jinja2.Environment(autoescape=True, loader=loader)
    surroundings.policies["json.dumps_kwargs"] = {}  # in their order, by which Bokeh's refer back
    page = surroundings.get_template(f"{template}.html.jinja")
    path = folder.path / file
    text = page.render(**shared, settings=settings, provenance=stored, **fields)
    write_text(text, path)
    return path


def picture_words(
    shape: Sequence[int], *, task: str, image: str, noise_sigma: object = None
) -> str:
    """Say what is restored: a task, an image, its size, its noise."""
    channels, *size = shape
    sigma = float(noise_sigma) if isinstance(noise_sigma, float | int) else 0.0
    return (
        f"{task} of {image}, {'x'.join(map(str, size))} pixels, {channels} "
        f"channel{'' if channels == 1 else 's'}{f', noise sigma {sigma:.4g}' if sigma else ''}"
    )


def lead_of(folder: RunFolder, task: Task) -> str:
    """Say what a folder's run restores, from which seed and where."""
    asked: dict[str, Any] = folder.settings or {}
    words = picture_words(
        task.shape,
        task=task.name,
        image=str(asked.get("image", "an image")),
        noise_sigma=task.noise_sigma / task.data_range if task.noise_sigma else None,
    )
    return f"{words}, seed {asked.get('seed', 0)}, on {asked.get('device', 'cpu')}."


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def embedded(path: Path) -> str:
    """Read a picture for a page that works without it."""
    return base64.b64encode(path.read_bytes()).decode("ascii")


def drawn(
    figures: dict[str, Figure], folder: Path, formats: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Write figures as PNG, and in other formats, and embed them."""
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        save_figures(figure, folder / name, {"png", *formats})
    return [{"name": name, "data": embedded(folder / f"{name}.png")} for name in figures]
