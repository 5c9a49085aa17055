"""What nbval leaves out of the comparison: pictures and HTML, and warnings, which depend on versions."""

import os

os.environ.pop("MPLBACKEND", None)  # a backend set in the shell would keep the figures out of the cells


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "image/svg+xml", "image/png", "text/html")
