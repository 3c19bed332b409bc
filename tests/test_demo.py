"""`make demo` runs anywhere, also without any clips beside it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_demo_renders_trains_evaluates_and_predicts(tmp_path):
    command = [
        sys.executable,
        "scripts/demo.py",
        "--data",
        "nowhere",
        "--output",
        str(tmp_path),
        "--epochs",
        "10",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    for verb in ("train", "evaluate", "predict"):
        assert f"$ openxclip {verb}" in done.stdout
    assert "moving left" in done.stdout
    result = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert result["num_videos"] == 32
    assert result["num_unreadable"] == 0
