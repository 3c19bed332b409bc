"""FFmpeg for torchcodec, which brings none: the build inside PyAV's wheel, so that both decode with the same code."""

import os
import re
import sys
from pathlib import Path

import av

PATH = "LD_LIBRARY_PATH"


def restart_with_ffmpeg(folder: Path) -> None:
    """Start this Python anew, where that is needed, with `folder` full of links to PyAV's libraries on its path.

    The wheel's libraries have a hash in their names, and the linker reads its path only when a process starts.
    Where PyAV is built on the system's FFmpeg no links are needed: torchcodec finds it by itself.
    """
    libraries = sorted((Path(av.__file__).parents[1] / "av.libs").glob("*.so*"))
    if not libraries or str(folder) in os.environ.get(PATH, "").split(os.pathsep):
        return
    link_libraries(libraries, folder)
    others = [os.environ[PATH]] if PATH in os.environ else []
    os.environ[PATH] = os.pathsep.join([str(folder), *others])
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def link_libraries(libraries: list[Path], folder: Path) -> None:
    """A link to each under its own name, and under the plain one: libavcodec-5e6b.so.62.28 is libavcodec.so.62."""
    folder.mkdir(parents=True, exist_ok=True)
    for library in libraries:
        plain = re.sub(r"^(lib\w+)-[0-9a-f]+(\.so\.\d+).*", r"\1\2", library.name)
        for name in {library.name, plain}:
            link = folder / name
            link.unlink(missing_ok=True)
            link.symlink_to(library)
