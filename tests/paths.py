"""Where the optional real test data lies; tests that need it skip, with the reason, where it is absent."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("OPENXCLIP_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def needs_data(relative: str) -> pytest.MarkDecorator:
    """Skip marker for a test that reads `relative` below the data folder."""
    path = DATA / relative
    return pytest.mark.skipif(
        not path.exists(), reason=f"needs {path} (set OPENXCLIP_TEST_DATA to the data folder)"
    )
