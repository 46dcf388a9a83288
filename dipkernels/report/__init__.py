"""Reports: a table for the terminal, and one self-contained HTML page."""

from dipkernels.report.page import write_report
from dipkernels.report.table import format_table

__all__ = ["format_table", "write_report"]
