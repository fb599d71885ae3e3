"""Write the table of metrics in observability_status.rst from the one in the package.

Run it after a change of ``waitress.prometheus.METRICS``; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from waitress.prometheus import METRICS, Metric

PAGE = Path(__file__).parent / "observability_status.rst"

BEGIN = ".. The table is written by write_metrics.py.\n"
END = ".. End of the table.\n"

HEAD = """
.. list-table::
   :header-rows: 1
   :widths: 40 12 15 33

   * - Metric
     - Type
     - Unit
     - Meaning
"""


def row(metric: Metric) -> str:
    """Return the lines of one metric."""
    label = f" Label: ``{metric.label}``." if metric.label else ""
    return (
        f"   * - ``{metric.name}``\n"
        f"     - {metric.kind}\n"
        f"     - {metric.unit}\n"
        f"     - {metric.help}{label}\n"
    )


def current(page: str) -> str:
    """Return the page with the table as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = HEAD + "".join(map(row, METRICS))
    return f"{before}{BEGIN}{table}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
