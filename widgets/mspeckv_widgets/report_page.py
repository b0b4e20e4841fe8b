"""The page of a report, where the command line looks for it."""

from mspeckv_widgets.panels.report_page import page

__all__ = ["page"]
