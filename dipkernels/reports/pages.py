"""What all pages share: a template, the settings of a run folder, and figures within the page."""

import base64
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from dipkernels.plotting.style import save_figures
from dipkernels.storage.netcdf import write_text
from dipkernels.storage.runs import RunFolder


def write_page(folder: RunFolder, file: str, template: str, **fields: object) -> Path:
    """Fill a template with fields and the folder's settings, and write it there."""
    stored = folder.record
    settings = stored.pop("settings", {})
    text = resources.files(__package__).joinpath(f"{template}.html.jinja").read_text("utf-8")
    page = jinja2.Environment(autoescape=True).from_string(text)
    path = folder.path / file
    write_text(page.render(settings=settings, provenance=stored, **fields), path)
    return path


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
