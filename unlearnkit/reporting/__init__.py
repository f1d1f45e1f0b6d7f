"""From records to a folder, tables, figures and a page."""

from unlearnkit.reporting.charts import STYLE, chart, gallery, mosaic, panels, to_svg
from unlearnkit.reporting.escaping import MISSING, markdown_cell, slug
from unlearnkit.reporting.figures import (
    gap_against_cost,
    loss_histograms,
    roc_curves,
    verification_errors,
)
from unlearnkit.reporting.identified import by_identified, identified_shares
from unlearnkit.reporting.page import (
    compose_page,
    figure_section,
    html_table,
    report_page,
    settings_section,
    table_section,
)
from unlearnkit.reporting.progress import StageProgress
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
from unlearnkit.reporting.tidy import (
    COORDINATES,
    to_pandas,
    to_rows,
    write_jsonl,
    write_parquet,
)
from unlearnkit.reporting.verdicts import verdict_rows, verdicts_to_markdown, verdicts_to_text

__all__ = [
    "COLUMNS",
    "COORDINATES",
    "MISSING",
    "STYLE",
    "Column",
    "RunFolder",
    "RunFolderError",
    "StageProgress",
    "by_identified",
    "chart",
    "compose_page",
    "figure_section",
    "gallery",
    "gap_against_cost",
    "html_table",
    "identified_shares",
    "loss_histograms",
    "markdown_cell",
    "mosaic",
    "panels",
    "present",
    "read_records",
    "read_run",
    "report_page",
    "roc_curves",
    "rows",
    "settings_section",
    "slug",
    "table_section",
    "to_latex",
    "to_markdown",
    "to_pandas",
    "to_rich",
    "to_rows",
    "to_svg",
    "verdict_rows",
    "verdicts_to_markdown",
    "verdicts_to_text",
    "verification_errors",
    "write_jsonl",
    "write_parquet",
]
