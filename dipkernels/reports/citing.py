"""How to cite the package, and code that opens a run: the two boxes at the end of a page."""

from pathlib import Path

import dipkernels

TITLE = (
    "dipkernels: priors over images that neural networks carry, measured and compared with kernel "
    "theory"
)
AUTHORS, YEAR = "The dipkernels authors", "2026"


def citation() -> str:
    """Write the BibTeX entry of the version that made the page."""
    return (
        f"@software{{dipkernels,\n  title   = {{{TITLE}}},\n  author  = {{{{{AUTHORS}}}}},\n"
        f"  version = {{{dipkernels.__version__}}},\n  year    = {{{YEAR}}}\n}}"
    )


def reopening(folder: Path, lines: str) -> str:
    """Write code that reopens the run of a page."""
    return f"import dipkernels\n\nrun = dipkernels.open_run({str(folder.resolve())!r})\n{lines}"
