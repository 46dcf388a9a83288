"""Reports: a table for the terminal, and one self-contained HTML page."""

from dipkernels.reports.audited import audit_page
from dipkernels.reports.before import covariance_page
from dipkernels.reports.comparison import write_report
from dipkernels.reports.fitted import fit_page
from dipkernels.reports.gallery import gallery_page, gallery_settings, stored_card
from dipkernels.reports.kernels import kernels_page
from dipkernels.reports.posterior import PosteriorReport, posterior_page
from dipkernels.reports.regressed import gp_page
from dipkernels.reports.scored import score_page
from dipkernels.reports.swept import sweep_page
from dipkernels.reports.table import format_table

__all__ = [
    "PosteriorReport",
    "audit_page",
    "covariance_page",
    "fit_page",
    "format_table",
    "gallery_page",
    "gallery_settings",
    "gp_page",
    "kernels_page",
    "posterior_page",
    "score_page",
    "stored_card",
    "sweep_page",
    "write_report",
]
