"""An evaluation as a page: one HTML file with its plots inside, and no script and no network."""

from clipper_stream.evaluation.report.page import render_page, write_page

__all__ = ["render_page", "write_page"]
