"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores; torch reads this when it is imported, in the processes that tests start, too.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans beside the project; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder of real scans ../shared/data beside the project")
    return SHARED
