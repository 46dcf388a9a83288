"""Reports: a table for the terminal, and one self-contained HTML page."""

from dipkernels.report.gallery import gallery_page, gallery_settings, stored_card
from dipkernels.report.page import write_report
from dipkernels.report.table import format_table

__all__ = ["format_table", "gallery_page", "gallery_settings", "stored_card", "write_report"]
