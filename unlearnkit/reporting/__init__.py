"""From records to a folder, tables, figures and a page."""

from unlearnkit.reporting.figures import (
    gap_against_cost,
    loss_histograms,
    roc_curves,
    verification_errors,
)
from unlearnkit.reporting.page import report_page
from unlearnkit.reporting.run_folder import RunFolder, RunFolderError, read_records, read_run
from unlearnkit.reporting.table import COLUMNS, rows, to_latex, to_markdown, to_rich

__all__ = [
    "COLUMNS",
    "RunFolder",
    "RunFolderError",
    "gap_against_cost",
    "loss_histograms",
    "read_records",
    "read_run",
    "report_page",
    "roc_curves",
    "rows",
    "to_latex",
    "to_markdown",
    "to_rich",
    "verification_errors",
]
