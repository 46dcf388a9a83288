"""Writes the page of the atlas into the built documentation, from the tables of the experiment."""

import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to the end of a build."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write ``atlas/index.html``, to which the page on the atlas links."""
    if exception is not None or app.builder.format != "html":
        return
    sys.path.insert(0, str(ROOT))
    from experiments.atlas.page import committed_page

    folder = Path(app.outdir) / "atlas"
    folder.mkdir(exist_ok=True)
    committed_page(folder)
