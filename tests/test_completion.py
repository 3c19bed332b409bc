"""`openxclip completion`: the shell itself completes what a person types."""

import io
import os
import pty
import re
import select
import shutil
import subprocess
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from openxclip.cli.completion import FILES
from openxclip.cli.evaluate import PROTOCOLS
from openxclip.cli.main import COMMANDS, run

pytestmark = pytest.mark.on_cpu

TYPED = {
    "openxclip pret": "openxclip pretrain ",
    "openxclip evaluate zer": "openxclip evaluate zero-shot ",
    "openxclip predict --dty": "openxclip predict --dtype ",
    "openxclip predict --dtype bf": "openxclip predict --dtype bfloat16 ",
    "openxclip evaluate supervised --media": "openxclip evaluate supervised --media-root ",
    "openxclip predict cli": "openxclip predict clip.mp4 ",
    "openxclip predict clip.mp4 --model run": "openxclip predict clip.mp4 --model runs/",
}
"""What is typed before the tabulator, and what then stands in the line."""


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    """The script of each shell."""
    return {shell: printed(shell) for shell in FILES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a video and a folder."""
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "runs").mkdir()
    return tmp_path


def printed(shell: str) -> str:
    with redirect_stdout(io.StringIO()) as out:
        assert run(["completion", shell]) == 0
    return out.getvalue()


class Terminal:
    """A shell in a pseudo-terminal."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ.update(TERM="dumb", PS1="$ ", HOME=str(folder))
            os.execvp(command[0], command)

    def type(self, keys: str, until: str) -> str:
        """What the terminal shows after these keys, read until it shows a text, or for 20 seconds."""
        os.write(self.terminal, keys.encode())
        shown, end = "", time.monotonic() + 20
        while until not in shown and time.monotonic() < end:
            if select.select([self.terminal], [], [], 0.1)[0]:
                text = os.read(self.terminal, 65536).decode(errors="replace")
                shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown + text)
        return shown

    def end(self) -> None:
        os.close(self.terminal)
        os.waitpid(self.pid, 0)


def completed(command: list[str], set_up: str, folder: Path) -> dict[str, str]:
    """What a shell makes of what is typed."""
    terminal = Terminal(command, folder)
    try:
        terminal.type(f"{set_up}; echo re''ady\n", "\nready")
        found = {}
        for typed, wanted in TYPED.items():
            found[typed] = terminal.type(f"{typed}\t", wanted)
            terminal.type("\x15", "")  # clears the line
        return found
    finally:
        terminal.end()


def test_bash_completes_commands_options_values_and_files(scripts: dict[str, str], folder: Path) -> None:
    (folder / "script").write_text(scripts["bash"], encoding="utf-8")
    found = completed(["bash", "--norc", "--noprofile", "-i"], "source ./script", folder)
    for typed, wanted in TYPED.items():
        assert wanted in found[typed]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_does_the_same(scripts: dict[str, str], folder: Path) -> None:
    (folder / "functions").mkdir()
    (folder / "functions" / "_openxclip").write_text(scripts["zsh"], encoding="utf-8")
    set_up = "fpath=($PWD/functions $fpath); autoload -Uz compinit && compinit -u -D"
    found = completed(["zsh", "-f", "-i"], set_up, folder)
    for typed, wanted in TYPED.items():
        assert wanted in found[typed]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize("typed", TYPED)
def test_fish_offers_the_same(scripts: dict[str, str], folder: Path, typed: str) -> None:
    (folder / "script").write_text(scripts["fish"], encoding="utf-8")
    command = ["fish", "--no-config", "-c", 'source ./script; complete -C "$argv"', typed]
    home = os.environ | {"HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=home, capture_output=True, text=True, timeout=60)
    offered = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert TYPED[typed].split()[-1] in offered


@pytest.mark.parametrize("shell", FILES)
def test_a_script_knows_every_command(scripts: dict[str, str], shell: str) -> None:
    for name in (*COMMANDS, *PROTOCOLS):
        assert f"'{name}': {{'description'" in scripts[shell].replace('\\"', '"')


def test_bash_accepts_the_script_without_a_word(scripts: dict[str, str], folder: Path) -> None:
    (folder / "script").write_text(scripts["bash"], encoding="utf-8")
    done = subprocess.run(
        ["bash", "--norc", "-c", "source ./script"], cwd=folder, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_docs_say_where_the_scripts_belong() -> None:
    page = (Path(__file__).parents[1] / "docs" / "predicting.md").read_text(encoding="utf-8")
    assert re.findall(r"^command openxclip completion (\w+) >", page, re.MULTILINE) == [*FILES]
