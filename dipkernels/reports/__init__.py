"""Reports: a table for the terminal, and one self-contained HTML page."""

from dipkernels.reports.comparison import write_report
from dipkernels.reports.fitted import fit_page
from dipkernels.reports.gallery import gallery_page, gallery_settings, stored_card
from dipkernels.reports.kernels import kernels_page
from dipkernels.reports.posterior import PosteriorReport, posterior_page
from dipkernels.reports.swept import sweep_page
from dipkernels.reports.table import format_table

__all__ = [
    "PosteriorReport",
    "fit_page",
    "format_table",
    "gallery_page",
    "gallery_settings",
    "kernels_page",
    "posterior_page",
    "stored_card",
    "sweep_page",
    "write_report",
]
