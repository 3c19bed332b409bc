"""`make demo`: clips of novel classes, their predictions and the contact sheet."""

import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from tiny import tiny_model, tiny_tokenizer

from openxclip.checkpoints.save import save_as
from openxclip.shapes.splits import WORLDS
from openxclip.video.transforms import Preprocessor

DEMO = Path(__file__).parents[1] / "scripts" / "demo.py"


@pytest.mark.on_cpu
def test_the_demo_predicts_novel_clips_and_draws_them(tmp_path):
    """A folder named like the shipped model goes before it: the demo is the same with any weights."""
    save_as(tmp_path / "openxclip-tiny", tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    done = subprocess.run(
        [sys.executable, str(DEMO)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr

    clips = sorted((tmp_path / "demo" / "clips").iterdir())
    names = {path.stem.replace("_", " ") for path in clips}
    assert len(names) == 6
    assert names <= {kind.name for kind in WORLDS["full"].novel}
    assert len({name.split(" ", 2)[2] for name in names}) == 6, "another motion each"
    for path in clips:
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 32

    command, *rest = done.stdout.splitlines()
    assert command.startswith("$ openxclip predict demo/clips --labels ")
    assert command.endswith("--model openxclip-tiny --top-k 3")
    labels = re.findall(r"'(.*)'", command)[0].split(", ")
    assert names < set(labels)
    assert len(labels) == 12
    assert [line for line in rest if line.startswith("demo/clips/")] == [
        f"demo/clips/{p.name}" for p in clips
    ]
    assert sum(line.endswith(tuple(labels)) and "%" in line for line in rest) == 3 * 6

    sheet = tmp_path / "demo" / "contact_sheet.png"
    assert re.fullmatch(rf"\d of 6 are right\. .*: {re.escape(str(sheet.resolve()))}", rest[-1])
    with av.open(str(sheet)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000
