"""Pictures of pages in docs/, taken with the Chromium of the system's packages."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DOCS = Path(__file__).parents[1] / "docs"


def keep_screenshot(page, name: str) -> None:
    """Keep a picture in docs/, unless the one there shows the same."""
    data, path = page.screenshot(), DOCS / name
    if path.exists():
        new, old = (np.asarray(Image.open(source).convert("RGB"), int) for source in (io.BytesIO(data), path))
        if new.shape == old.shape and np.abs(new - old).mean() < 2:
            return
    if os.access(DOCS, os.W_OK):
        path.write_bytes(data)
