"""Fixtures that every test may use."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans beside the project; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder of real scans ../shared/data beside the project")
    return SHARED
