"""From records to a folder, tables, figures and a page."""

from unlearnkit.reporting.escaping import MISSING, markdown_cell, slug
from unlearnkit.reporting.figures import (
    confusion_chart,
    course_chart,
    example_chart,
    loss_chart,
    points_chart,
    roc_chart,
    verification_chart,
)
from unlearnkit.reporting.identified import by_identified, identified_rows, identified_shares
from unlearnkit.reporting.losses import rates_told, retain_losses
from unlearnkit.reporting.page import (
    compose_page,
    figure_section,
    html_table,
    settings_section,
    table_section,
)
from unlearnkit.reporting.progress import StageProgress
from unlearnkit.reporting.report import ReportOptions, report_figures, report_page
from unlearnkit.reporting.run_folder import RunFolder, RunFolderError, read_records, read_run
from unlearnkit.reporting.table import (
    COLUMNS,
    Column,
    present,
    rows,
    to_latex,
    to_markdown,
    to_rich,
)
from unlearnkit.reporting.theme import to_picture, to_svg
from unlearnkit.reporting.tidy import (
    COORDINATES,
    to_pandas,
    to_rows,
    write_jsonl,
    write_parquet,
)
from unlearnkit.reporting.verdicts import verdict_rows, verdicts_to_markdown, verdicts_to_text
from unlearnkit.reporting.views import Drawn, Gallery

__all__ = [
    "COLUMNS",
    "COORDINATES",
    "MISSING",
    "Column",
    "Drawn",
    "Gallery",
    "ReportOptions",
    "RunFolder",
    "RunFolderError",
    "StageProgress",
    "by_identified",
    "compose_page",
    "confusion_chart",
    "course_chart",
    "example_chart",
    "figure_section",
    "html_table",
    "identified_rows",
    "identified_shares",
    "loss_chart",
    "markdown_cell",
    "points_chart",
    "present",
    "rates_told",
    "read_records",
    "read_run",
    "report_figures",
    "report_page",
    "retain_losses",
    "roc_chart",
    "rows",
    "settings_section",
    "slug",
    "table_section",
    "to_latex",
    "to_markdown",
    "to_pandas",
    "to_picture",
    "to_rich",
    "to_rows",
    "to_svg",
    "verdict_rows",
    "verdicts_to_markdown",
    "verdicts_to_text",
    "verification_chart",
    "write_jsonl",
    "write_parquet",
]
