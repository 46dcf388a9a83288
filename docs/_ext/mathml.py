"""Formulas as MathML, which browsers draw by themselves: no script, and no network."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
# A wide formula scrolls, and what stands above or below its line isn't cut off.
ROOMY = "overflow-x: auto; padding: 0.4em 0; margin-bottom: 1em; font-size: 1.15em"


def _inline(writer: HTML5Translator, node: nodes.Element) -> None:
    writer.body.append(_made(node, "inline"))
    raise nodes.SkipNode


def _display(writer: HTML5Translator, node: nodes.Element) -> None:
    writer.body.append(f'<div style="{ROOMY}">{_made(node, "block")}</div>\n')
    raise nodes.SkipNode


def _made(node: nodes.Element, display: str) -> str:
    formula = convert(node.astext(), display=display)
    if "\\" in formula:  # a command that it doesn't know stays as it was typed
        logger.warning("no MathML of %s", node.astext(), location=node)
    return formula


def setup(app: Sphinx) -> dict[str, bool]:
    """Make it known to Sphinx as ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
