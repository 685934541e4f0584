"""One thread for each of pytest's workers: with more they fight over the cores, and spin while they wait."""

from __future__ import annotations

import os

# Read by torch when it is imported, which no test module has done yet; what a test starts inherits it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
