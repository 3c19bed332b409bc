"""The `openxclip` command: each subcommand is a typed function in its own file, with heavy imports inside it."""

import io
import logging
import os
import sys
import traceback
from collections.abc import Callable

import tyro

from openxclip.cli.ablate import ablate
from openxclip.cli.benchmark import benchmark
from openxclip.cli.completion import completion_of
from openxclip.cli.convert import convert
from openxclip.cli.evaluate import PROTOCOLS, evaluate
from openxclip.cli.explain import explain
from openxclip.cli.export import export
from openxclip.cli.index import index
from openxclip.cli.info import info
from openxclip.cli.models import models
from openxclip.cli.pack import pack
from openxclip.cli.predict import predict
from openxclip.cli.pretrain import pretrain
from openxclip.cli.render import render
from openxclip.cli.report import report
from openxclip.cli.search import search
from openxclip.cli.serve import serve
from openxclip.cli.tag import tag
from openxclip.cli.timeline import timeline
from openxclip.cli.train import train
from openxclip.errors import ConfigError, InputError, OpenXCLIPError
from openxclip.launching import Launch, are_many, launch

COMMANDS: dict[str, Callable[..., int | Launch]] = {
    "predict": predict,
    "explain": explain,
    "timeline": timeline,
    "tag": tag,
    "index": index,
    "search": search,
    "serve": serve,
    "pack": pack,
    "train": train,
    "evaluate": evaluate,
    "ablate": ablate,
    "pretrain": pretrain,
    "render": render,
    "report": report,
    "models": models,
    "info": info,
    "convert": convert,
    "export": export,
    "benchmark": benchmark,
}
COMMANDS["completion"] = completion_of(COMMANDS, {"evaluate": PROTOCOLS})

DESCRIPTION = """Recognise anything you can name, in any video.

Data goes to stdout, messages and progress to stderr. Exit status: 0 success, 1 some input failed, 2 usage error.
An error is one line; --debug shows its traceback. --version prints the version."""


def main() -> None:
    """Entry point of the command."""
    # Before torch is imported: while the model waits for decoder threads, or for other programs on the same
    # cores, its idle threads must not spin (a training step took 20 times as long next to a busy process).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # file names may hold characters that the encoding cannot express
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="openxclip: %(message)s")  # warnings, to stderr
    if sys.argv[1:] == ["--version"]:
        from openxclip import __version__

        print(f"openxclip {__version__}")
        return
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    sys.exit(run(arguments, debug))


def run(arguments: list[str], debug: bool = False) -> int:
    """Run a subcommand -> exit status; under torchrun, as one of several processes."""
    if not are_many():
        return _run(arguments, debug, _tell)
    try:
        from openxclip.processes import run_as_one

        return run_as_one(lambda tell: _run(arguments, debug, tell))
    except KeyboardInterrupt:  # while torch is imported, or while processes connect
        if os.environ["RANK"] == "0":
            _tell("openxclip: interrupted")
        os._exit(130)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _run(arguments: list[str], debug: bool, tell: Callable[[str], None]) -> int:
    try:
        status = _status(arguments)
        sys.stdout.flush()  # a closed pipe raises here, where it is handled, not at exit
        return status
    except KeyboardInterrupt:
        tell("openxclip: interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output, e.g. `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OpenXCLIPError, OSError) as error:  # OSError if the file system refuses a folder or a file
        if debug:
            tell(traceback.format_exc())
        tell(f"openxclip: {error}")
        return 2 if isinstance(error, InputError | ConfigError) else 1


def _status(arguments: list[str]) -> int:
    if arguments[:1] == ["evaluate"]:  # it has subcommands of its own
        return evaluate(arguments[1:])
    status = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="openxclip", description=DESCRIPTION, args=arguments
    )
    return launch(status.num_processes, arguments) if isinstance(status, Launch) else status
