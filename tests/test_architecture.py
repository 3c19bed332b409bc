"""The house keeps its rooms: who may import whom, read from the source, and the rules of style that can be counted."""

import ast
import graphlib
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import openxclip

SOURCE = Path(openxclip.__file__).parent
ROOT = Path(__file__).parents[1]
FILES = sorted(SOURCE.rglob("*.py"))

GROUND = "(ground)"  # the modules at the package root, such as errors.py, which any room may import
ORDER = (  # from the ground up: a room imports only from those before it
    GROUND,
    "text",
    "video",
    "models",
    "checkpoints",
    "shapes",
    "data",
    "runtimes",
    "inference",
    "timelines",
    "evaluation",
    "reports",
    "training",
    "recipes",
    "experiments",
)
STRANGERS = {("video", "text"), ("models", "text"), ("models", "video")}
"""Pairs that know nothing of each other although they stand in one line."""
ROOMS = {
    room: {below for below in ORDER[:place] if (room, below) not in STRANGERS}
    for place, room in enumerate(ORDER)
}
for app in ("tagging", "serving"):
    ROOMS[app] = {*ORDER[: ORDER.index("reports") + 1]}
ROOMS["search"] = {*ROOMS["tagging"], "tagging"}
# On top stand the public surface and the command, which no room may import.
ROOMS["(public)"] = set(ROOMS)
ROOMS["cli"] = set(ROOMS)

MAX_FUNCTION_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    """src/openxclip/models/text.py -> openxclip.models.text; a package has the name of its folder."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
by_module = pytest.mark.parametrize("name", MODULES)


def room_of(module: str) -> str:
    """openxclip.models.text -> models; modules at the root are the ground, the package itself is public."""
    if module == "openxclip":
        return "(public)"
    if module == "openxclip.__main__":
        return "cli"
    first = module.split(".")[1]
    return first if (SOURCE / first).is_dir() else GROUND


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Modules of the project that a module imports: at its top, inside functions and for type checking alike."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "openxclip")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "openxclip":
            for alias in node.names:  # `from package import module` imports the module
                inner = f"{node.module}.{alias.name}"
                if (
                    inner != "openxclip.__version__"
                ):  # of the package itself, which imports nothing of ours for it
                    yield inner if inner in MODULES else str(node.module)


def functions_of(tree: ast.Module) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


@by_module
def test_a_module_imports_only_from_rooms_below_its_own(name: str) -> None:
    room = room_of(name)
    assert room in ROOMS, f"{room}/ has no place in the order of rooms yet"
    allowed = ROOMS[room] | {room}
    assert [used for used in imports_of(MODULES[name]) if room_of(used) not in allowed] == []


def test_the_order_of_rooms_keeps_its_promises() -> None:
    """The table above is itself checked, so that nobody can widen it by accident."""
    assert "video" not in ROOMS["models"]
    assert "models" not in ROOMS["video"]
    assert "serving" not in ROOMS["training"]
    assert "training" not in ROOMS["serving"]
    for room, below in ROOMS.items():
        assert all(ROOMS[lower] <= below for lower in below), (
            f"{room} sees a room, but not what is below that"
        )
    graphlib.TopologicalSorter(ROOMS).prepare()  # raises CycleError


def test_modules_do_not_import_in_a_circle() -> None:
    graphlib.TopologicalSorter({name: set(imports_of(tree)) for name, tree in MODULES.items()}).prepare()


@by_module
def test_imports_are_absolute(name: str) -> None:
    """One way to write an import; the tests above read no other."""
    imports = [node for node in ast.walk(MODULES[name]) if isinstance(node, ast.ImportFrom)]
    assert [node.lineno for node in imports if node.level] == []


def test_importing_the_package_is_light() -> None:
    """`import openxclip` and `openxclip --help` must not wait for torch."""
    code = "import openxclip, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "openxclip" in loaded
    assert loaded & {"torch", "numpy", "av", "transformers", "tokenizers", "huggingface_hub", "tyro"} == set()


@pytest.mark.parametrize("room", ["models", "video"])
def test_the_two_lowest_rooms_do_not_load_each_other(room: str) -> None:
    """Read from a running interpreter: no import by name, plug-in or side effect escapes this."""
    code = f"import openxclip.{room}, sys; print(*(n for n in sys.modules if n.startswith('openxclip.')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {room_of(module) for module in run.stdout.split()}
    assert room in loaded
    assert loaded <= {room, GROUND}


@by_module
def test_no_function_is_long(name: str) -> None:
    lengths = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions_of(MODULES[name])}
    assert {function: n for function, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


@by_module
def test_every_argument_and_return_has_a_type(name: str) -> None:
    assert [f"{f.name}, line {f.lineno}" for f in functions_of(MODULES[name]) if untyped(f)] == []


def untyped(function: Function) -> list[str]:
    """What lacks an annotation; `self` and `cls` need none."""
    spec = function.args
    arguments = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
    names = [a.arg for a in arguments if a and a.annotation is None and a.arg not in ("self", "cls")]
    return names if function.returns else [*names, "return"]


@by_module
def test_every_module_has_a_docstring(name: str) -> None:
    assert ast.get_docstring(MODULES[name])


def test_the_file_map_is_current() -> None:
    run = runpy.run_path(str(ROOT / "scripts" / "file_map.py"))
    page = (ROOT / "docs" / "file-map.md").read_text(encoding="utf-8")
    assert page == run["file_map"](), "run `python scripts/file_map.py`"
