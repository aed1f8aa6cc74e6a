"""The house's rules: imports go down, nothing imports in a circle, and everything can be read in one sitting."""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "closeup_ns"
ROOMS = (
    ("method_config", "dataparser_config"),
    ("cli",),
    ("bench",),
    ("evaluation",),
    ("studio",),
    ("viewer", "report"),
    ("rounds",),
    ("refine", "model", "planning", "paths", "metrics"),
    ("rendering", "data", "progress"),
    ("views",),
    ("reading", "atomic"),
    ("errors", "provenance", "peak_memory", "ffmpeg"),
)
"""From the top to the bottom. A room imports itself and rooms of lower lines."""
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
LONGEST_FUNCTION, LONGEST_FILE, FULLEST_FOLDER = 60, 400, 15


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf8")) for name, path in FILES.items()}


def imports(name: str, tree: ast.Module) -> set[str]:
    """The package's modules that one imports: at its top, in functions, and for the type checker."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports name the package"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
            found |= inner or {str(node.module)}
    return found & FILES.keys() - {name, "closeup_ns"}


IMPORTS = {name: imports(name, tree) for name, tree in TREES.items()}
KERNELS = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".cpp", ".h"))


def room_of(name: str) -> str:
    return name.split(".")[1]


def test_every_room_has_its_place() -> None:
    rooms = {room_of(name) for name in FILES if name != "closeup_ns"}
    assert rooms == LEVEL.keys()


@pytest.mark.parametrize("name", IMPORTS)
def test_imports_go_down(name: str) -> None:
    for other in IMPORTS[name]:
        assert room_of(name) == room_of(other) or LEVEL[room_of(name)] < LEVEL[room_of(other)], f"{name} -> {other}"


def test_no_module_imports_in_a_circle() -> None:
    TopologicalSorter(IMPORTS).prepare()  # CycleError names the circle


@pytest.mark.parametrize("name", FILES)
def test_a_function_and_a_file_can_be_read_in_one_sitting(name: str) -> None:
    assert len(FILES[name].read_text(encoding="utf8").splitlines()) <= LONGEST_FILE
    for node in ast.walk(TREES[name]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, f"{name}: {node.name}"


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_kernel_and_its_file_can_be_read_in_one_sitting(path: Path) -> None:
    lines = path.read_text(encoding="utf8").splitlines()
    assert len(lines) <= LONGEST_FILE
    start = 0
    for number, line in enumerate(lines):
        if line == "}":  # the end of a function: types end with "};", namespaces with a comment
            assert number - start < LONGEST_FUNCTION, f"{path}:{start + 1}"
        elif line[:1].strip() and line[0] not in "/#":
            start = number


def test_no_folder_is_a_heap() -> None:
    heaps = Counter(path.parent for path in [*FILES.values(), *KERNELS])
    assert {folder: count for folder, count in heaps.items() if count > FULLEST_FOLDER} == {}
