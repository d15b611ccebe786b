"""The self-contained `report.html` of a comparison."""

from experiments.report.page import write_report
from experiments.report.words import verdict

__all__ = ["verdict", "write_report"]
