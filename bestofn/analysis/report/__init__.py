"""The report: one HTML page with everything about a curve and its prompts."""

from bestofn.analysis.report.curve_page import write_report

__all__ = ["write_report"]
