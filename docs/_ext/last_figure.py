"""Pictures of the gallery: a figure that is the value of a block's last line, unknown to pyplot."""

from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

DPI = 150


def scrape(block: Any, variables: dict[str, Any], conf: dict[str, Any]) -> str:
    """Save it once, and say where it is."""
    del block
    figure = variables["example_globals"].get("___")  # Sphinx-Gallery's name of that value
    if not isinstance(figure, Figure) or hasattr(figure, "number"):
        return ""
    path = next(variables["image_path_iterator"])
    figure.savefig(path, dpi=DPI)
    variables["example_globals"]["___"] = None
    return str(figure_rst([path], conf["src_dir"]))
