"""Regenerate every learned table of docs/results.md: `make evidence`. If interrupted, the same command resumes.

Commands of one stage do not depend on each other and run at once, one thread each. A training that is finished is found
again, so that a second call only scores. The tables are kept in docs/results/ as JSON, and docs/results.md shows them
between the marks `<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import tyro

from openxclip.experiments.ablations import ABLATIONS
from openxclip.files import atomic_write
from openxclip.progress import progress_bar
from openxclip.reports.table import Cell, Table

ROOT = Path(__file__).parents[1]
PAGE, TABLES = ROOT / "docs" / "results.md", ROOT / "docs" / "results"
SEEDS = ("1", "2", "3")
SHARED = "components"
"""The ablation with the trainings that others also have: it comes first."""
SHOTS = (2, 4, 8, 16)
PATIENCE_SECONDS = 30.0
SHORT = ("--set", "optim.epochs=30", "--set", "optim.warmup_epochs=2")
"""Trainings on real clips that are only compared with each other."""

AS_FILES = "as-files"
ROWS = {
    "supervised": ("top-1",),
    "paraphrased": ("top-1",),
    AS_FILES: ("top-1",),
    "zero-shot": ("top-1, mean over splits", "top-1, std over splits"),
    "base-to-novel": ("base", "novel", "harmonic mean"),
    "label-union": ("top-1, with training labels", "best label is a training class"),
    "static-bias": ("top-1, other background", "same label over both", "top-1, frozen middle frame"),
}
"""Protocol -> the figures of it that are shown."""
MARKED = re.compile(r"(?<=<!-- table: )([\w-]+)( -->\n).*?(?=\n<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One call of `openxclip`."""

    name: str
    """Of its log, and what the progress shows."""
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Places:
    """Where the evidence is made, and from what."""

    folder: Path
    """Gets every training, table and log."""
    ucf8: Path | None = None
    """Real clips of eight classes, with lists; without them, their tables stay as they are."""

    def __getitem__(self, name: str) -> str:
        """A place below the folder, as an argument."""
        return str(self.folder / name)


# --- the commands -----------------------------------------------------------------------------------------------


def stages(places: Places) -> list[list[Command]]:
    """Every command, in stages; the long ones of a stage first, so that no process is left alone with them."""
    others = [name for name in ABLATIONS if name != SHARED]
    trainings = [*ablations(places, others), *few_shot(places), *small_models(places), *real_clips(places)]
    return [
        [*image_models(places)],
        [*ablations(places, [SHARED]), *rendered(places)],
        trainings,
        [*protocols(places), *collected(places)],
    ]


def image_models(places: Places) -> Iterator[Command]:
    """What the trainings start from."""
    starts = {f"ablations/clip-seed{seed}": ("shapes_clip_small", seed) for seed in SEEDS}
    if places.ucf8 is not None:
        starts["clip-large"] = ("shapes_clip_large", "0")
    for folder, (recipe, seed) in starts.items():
        arguments = ("pretrain", "--recipe", recipe, "--output", places[folder], "--set", f"seed={seed}")
        yield Command(f"pretrain {recipe} seed {seed}", arguments)


def ablations(places: Places, names: Sequence[str]) -> Iterator[Command]:
    """Each ablation with each seed alone: apart from `SHARED`, no two have a training in common."""
    for name, seed in product(names, SEEDS):
        arguments = ("ablate", name, "--output", places["ablations"], "--seeds", seed)
        yield Command(f"ablate {name} seed {seed}", arguments)


def few_shot(places: Places) -> Iterator[Command]:
    """K clips of each class of moving shapes."""
    for targets, seed in product(("text", "discrete"), SEEDS):
        yield Command(
            f"few-shot {targets} seed {seed}", (*few_shot_of(places), "--targets", targets, "--seeds", seed)
        )


def few_shot_of(places: Places) -> tuple[str, ...]:
    """The few-shot protocol on moving shapes; all seeds start from one image model."""
    return (
        *("evaluate", "few-shot", "--recipe", "shapes_small_few", "--data", "moving-shapes"),
        *("--train-list", "small-few-train", "--test-list", "small-few-test", "--shots", *map(str, SHOTS)),
        *("--set", f"init={places['ablations/clip-seed1']}", "--output", places["few-shot"]),
    )


def small_models(places: Places) -> Iterator[Command]:
    """The models of the ablations' last row, for the protocols."""
    for seed in SEEDS:
        start = ("--set", f"init={places[f'ablations/clip-seed{seed}']}", "--set", f"seed={seed}")
        output = ("--output", places[f"small-{seed}"])
        arguments = ("train", "--recipe", "shapes_small", "--data", "moving-shapes", *output, *start)
        yield Command(f"train shapes_small seed {seed}", arguments)


def real_clips(places: Places) -> Iterator[Command]:
    """Eight classes of UCF-101: the recipe's own training, and kinds of targets and starts compared in short ones."""
    if places.ucf8 is None:
        return
    for seed in SEEDS:
        output = ("--output", places[f"ucf8-{seed}"], "--set", f"seed={seed}")
        arguments = ("train", "--recipe", "ucf8_fewshot", "--data", str(places.ucf8), *output)
        yield Command(f"train ucf8_fewshot seed {seed}", arguments)
    for start, targets, seed in product(("shapes", "scratch"), ("text", "discrete"), SEEDS):
        kind = ("--targets", targets, "--seeds", seed)
        yield Command(f"ucf8 from {start} {targets} seed {seed}", (*few_real_clips(places, start), *kind))


def few_real_clips(places: Places, start: str) -> tuple[str, ...]:
    """The few-shot protocol on real clips, from stills of moving shapes or from scratch."""
    begin = {
        "shapes": ("ucf8_from_shapes", "--set", f"init={places['clip-large']}"),
        "scratch": ("ucf8_fewshot",),
    }
    lists = [f"train_{shots}shot.txt" for shots in SHOTS]
    return (
        *("evaluate", "few-shot", "--data", str(places.ucf8), "--train-lists", *lists),
        *("--test-list", "test.txt", "--recipe", *begin[start], *SHORT),
        *("--output", places[f"ucf8-{start}"]),
    )


def rendered(places: Places) -> Iterator[Command]:
    """The new classes as video files, if they are not there yet: `render` writes new folders, whole, and no others."""
    if not Path(places["test-novel"]).exists():
        yield Command("render", ("render", "--list", "test-novel", "--output", places["test-novel"]))


def protocols(places: Places) -> Iterator[Command]:
    """Every protocol, of the shipped model and of the small ones."""
    shipped, small = ("--model", "openxclip-tiny"), [("--model", places[f"small-{seed}"]) for seed in SEEDS]
    files = ("supervised", "--data", places["test-novel"], "--list", "clips.txt")
    for world, prefix, models in (("tiny", "", shipped), ("small", "small-", sum(small, ()))):
        novel, shapes = f"{prefix}test-novel", ("--data", "moving-shapes")
        splits = [f"{novel}-{number}" for number in (1, 2, 3)]
        lists = {
            "supervised": ("supervised", *shapes, "--list", f"{prefix}test-base"),
            "paraphrased": ("supervised", *shapes, "--list", f"{novel}-paraphrased"),
            "zero-shot": ("zero-shot", *shapes, "--lists", *splits),
            "base-to-novel": (
                *("base-to-novel", *shapes, "--base-list", f"{prefix}test-base", "--novel-list", novel),
            ),
            "label-union": ("label-union", *shapes, "--list", novel),
            "static-bias": (
                *("static-bias", *shapes, "--list", novel, "--swapped-list", f"{novel}-other-background"),
            ),
        }
        for name, arguments in (lists | ({AS_FILES: files} if world == "tiny" else {})).items():
            output = ("--output", places[f"protocols/{world}/{name}"])
            yield Command(f"{world} {name}", ("evaluate", *arguments, *models, *output))
    if places.ucf8 is not None:
        real = sum((("--model", places[f"ucf8-{seed}"]) for seed in SEEDS), ())
        for views in ("1x1", "4x3"):
            data = ("--data", str(places.ucf8), "--list", "test.txt", "--views", views)
            output = ("--output", places[f"protocols/ucf8/{views}"])
            yield Command(f"ucf8 {views}", ("evaluate", "supervised", *data, *real, *output))


def collected(places: Places) -> Iterator[Command]:
    """The tables and pictures over all seeds: everything is trained by now."""
    all_seeds, both = ("--seeds", *SEEDS), ("--targets", "both")
    yield Command("ablate all", ("ablate", "all", "--output", places["ablations"], *all_seeds))
    yield Command("few-shot", (*few_shot_of(places), *both, *all_seeds))
    for start in ("shapes", "scratch") if places.ucf8 is not None else ():
        yield Command(f"ucf8 from {start}", (*few_real_clips(places, start), *both, *all_seeds))


# --- running them -----------------------------------------------------------------------------------------------


class Processes:
    """Commands that run, each in a process of its own, one thread each."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = logs
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(self, command: Command) -> int:
        """Run a command to its end -> exit status; what it prints is added to its log."""
        with (
            log_of(command, self.logs).open("a", encoding="utf-8") as log,
            subprocess.Popen(
                [sys.executable, "-m", "openxclip", *command.arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
            ) as process,
        ):
            self._running.add(process)
            try:
                return process.wait()
            finally:
                self._running.discard(process)

    def end(self) -> None:
        """Let what runs save and end; what has not after a while gets a stronger signal."""
        running = tuple(self._running)
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.terminate()


def run_all(todo: Sequence[Sequence[Command]], logs: Path, num_processes: int) -> list[str]:
    """Run the commands, stage by stage -> names of those that failed; a stage with failures is the last one."""
    processes = Processes(logs)
    with progress_bar() as bar:
        task = bar.add_task("evidence", total=sum(map(len, todo)), note="")
        for commands in todo:
            failed = []
            for command, status in _at_once(commands, processes, num_processes):
                bar.update(task, advance=1)
                bar.console.print(f"{command.name}: {'failed' if status else 'done'}")
                failed += [command.name] if status else []
            if failed:
                return failed
    return []


def _at_once(
    commands: Sequence[Command], processes: Processes, num_processes: int
) -> Iterator[tuple[Command, int]]:
    """Commands and their exit statuses, as they end. If interrupted, those that run save and end; no other starts."""
    with ThreadPoolExecutor(num_processes) as pool:
        running = {pool.submit(processes.run, command): command for command in commands}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
            raise


def log_of(command: Command, logs: Path) -> Path:
    """What a command printed."""
    return logs / f"{command.name.replace(' ', '-')}.log"


# --- the tables -------------------------------------------------------------------------------------------------


def keep_tables(places: Places) -> None:
    """Copy every table and picture that is there to docs/results/."""
    sources = {name: f"ablations/{name}" for name in ABLATIONS} | {"few-shot": "few-shot/few-shot"}
    sources |= {f"ucf8-{start}": f"ucf8-{start}/few-shot" for start in ("shapes", "scratch")}
    for name, source in sources.items():
        for suffix in (".json", ".png"):
            if (found := Path(places[source + suffix])).exists():
                shutil.copy(found, TABLES / f"{name}{suffix}")
    for world in ("tiny", "small"):
        protocol_table(Path(places["protocols"]) / world).save(TABLES / f"protocols-{world}.json")
    if places.ucf8 is not None:
        views_table(Path(places["protocols"]) / "ucf8").save(TABLES / "ucf8.json")


def protocol_table(folder: Path) -> Table:
    """The figures of all protocols; over several models, mean and standard deviation."""
    rows = [
        (name, figure, _figures(folder / name)[figure])
        for name, figures in ROWS.items()
        if name != AS_FILES or (folder / name).exists()  # the small models are scored on rendered clips alone
        for figure in figures
    ]
    return Table(
        title="top-1 by protocol, %",
        command="make evidence",
        columns=("protocol", "figure", "%"),
        rows=tuple(rows),
    )


def views_table(folder: Path) -> Table:
    """Top-1 and top-5 of the models that were trained on real clips, by views."""
    rows = [(views, *_figures(folder / views).values()) for views in ("1x1", "4x3")]
    return Table(
        title="eight classes of UCF-101, 16 clips of each, %",
        command="make evidence",
        columns=("views", *_figures(folder / "1x1")),
        rows=tuple(rows),
    )


def _figures(folder: Path) -> dict[str, Cell]:
    """Name of a figure -> its value, over all models where there are several: the last column of a protocol's table."""
    (path,) = folder.glob("*.json")
    return {row[0]: row[-1] for row in json.loads(path.read_text())["rows"]}


def shown(page: str, tables: Path) -> str:
    """The page with its marked tables as they are kept."""

    def rows(match: re.Match[str]) -> str:
        values = json.loads((tables / f"{match[1]}.json").read_text())
        table = Table(**values | {"columns": tuple(values["columns"])})
        return (
            match[1] + match[2] + "\n".join(line for line in table.markdown().splitlines() if line[:1] == "|")
        )

    return MARKED.sub(rows, page)


def main(
    output: Annotated[Path, tyro.conf.arg(help="folder for trainings, tables and logs")] = Path(
        "runs/evidence"
    ),
    ucf8: Annotated[
        Path | None,
        tyro.conf.arg(help="real clips of eight classes with lists; their tables stay without it"),
    ] = None,
    num_processes: Annotated[int, tyro.conf.arg(help="commands at once, one thread each")] = os.cpu_count()
    or 1,
) -> int:
    """Regenerate the learned tables of docs/results.md. If interrupted, the same command resumes."""
    places = Places(output, ucf8)
    if failed := run_all(stages(places), output / "logs", num_processes):
        print(f"evidence: {', '.join(failed)} failed; see {output / 'logs'}", file=sys.stderr)
        return 1
    keep_tables(places)
    with atomic_write(PAGE) as temporary:
        temporary.write_text(shown(PAGE.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
    print(
        f"evidence: {TABLES} and {PAGE} are renewed; read what the text beside the tables says",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    # SIGINT as well: a shell ignores it for what runs in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(tyro.cli(main))
    except KeyboardInterrupt:
        sys.exit("evidence: interrupted; the same command resumes")
