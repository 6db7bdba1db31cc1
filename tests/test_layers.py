"""The house holds: imports point down, fusefs > vdfs > sync > index, and nowhere in a circle.

The source is read, not run, so an import inside a function, under TYPE_CHECKING or by a literal importlib
call counts like any other: what a module knows of, it depends on. Two graphs have to be free of cycles: the
modules, and the rooms (packages and sub-packages: `index.scan`; a package's own root files are a room, its
doorway). A package's __init__ is a module of that name; importing a module does not count as importing the
__init__ files above it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("index", "sync", "vdfs", "fusefs")  # from the ground up

Graph = dict[str, set[str]]


def modules_under(root: Path) -> dict[str, Path]:
    """Dotted name -> file, for every module of the four packages."""
    found = {}
    for floor in FLOORS:
        for file in sorted((root / floor).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported_names(name: str, file: Path) -> Iterator[tuple[str, ...]]:
    """For each import in the file, the dotted names it may mean, the most particular first."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield (alias.name,)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*above, *([module] if module else [])])
                for alias in names:
                    yield (f"{base}.{alias.name}", base)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(target)), *_],
            ):
                yield (target,)


def imports_of(root: Path) -> Graph:
    """Module -> what it imports: a module of the house, or a name that is only known by its first word."""
    modules = modules_under(root)
    graph: Graph = {name: set() for name in modules}
    for name, file in modules.items():
        for choices in imported_names(name, file):
            known = [choice for choice in choices if choice in modules]
            graph[name].add(known[0] if known else choices[-1])
        graph[name].discard(name)
    return graph


def upward_imports(root: Path) -> list[str]:
    """Imports of a higher floor, or of what is no part of the product at all."""
    floor_of = {floor: height for height, floor in enumerate(FLOORS)} | {
        "tests": len(FLOORS),
        "tools": len(FLOORS),
    }
    return [
        f"{name} imports {target}"
        for name, targets in sorted(imports_of(root).items())
        for target in sorted(targets)
        if floor_of.get(target.split(".")[0], -1) > floor_of[name.split(".")[0]]
    ]


def module_graph(root: Path) -> Graph:
    graph = imports_of(root)
    return {name: {target for target in targets if target in graph} for name, targets in graph.items()}


def room_graph(root: Path) -> Graph:
    """The same arrows between packages: a module lives in the package that holds its file."""
    modules = modules_under(root)
    room_of = {name: ".".join(file.relative_to(root).parent.parts) for name, file in modules.items()}
    rooms: Graph = {room: set() for room in room_of.values()}
    for name, targets in module_graph(root).items():
        rooms[room_of[name]] |= {room_of[target] for target in targets} - {room_of[name]}
    return rooms


def cycles(graph: Graph) -> list[str]:
    """One shortest circle for each node that is on any, without repeating circles through the same nodes."""
    found: dict[frozenset[str], str] = {}
    for start in sorted(graph):
        came_from: dict[str, str] = {}
        queue = [start]
        for node in queue:  # grows while it is walked: breadth first
            for target in sorted(graph[node]):
                if target not in came_from:
                    came_from[target] = node
                    queue.append(target)
        if start in came_from:
            circle = [start]
            while (node := came_from[circle[-1]]) != start:
                circle.append(node)
            found.setdefault(frozenset(circle), " -> ".join([start, *reversed(circle)]))
    return list(found.values())


def test_every_floor_is_read():
    """A check that finds no source would always be green."""
    floors = {name.split(".")[0] for name in modules_under(ROOT)}
    assert {"index", "vdfs", "fusefs"} <= floors


def test_imports_point_down():
    """No module imports from a floor above its own, nor from tests or tools."""
    assert upward_imports(ROOT) == []


def test_there_is_one_sqlite_in_a_process():
    """The standard library's would take away the locks of apsw's (sqlite.org/howtocorrupt.html, 2.2.1)."""
    assert [name for name, targets in imports_of(ROOT).items() if any(t.startswith("sqlite3") for t in targets)] == []
    assert any("apsw" in targets for targets in imports_of(ROOT).values()), "such imports are seen"


def test_modules_form_no_circle():
    """No module imports itself through others, not even from inside a function."""
    assert cycles(module_graph(ROOT)) == []


def test_rooms_form_no_circle():
    """No sub-package imports itself through others, although its modules one by one might not."""
    assert cycles(room_graph(ROOT)) == []


# -- the checks themselves -----------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path):
    """Builds a small house from {path: source}, every package with its __init__."""

    def build(sources: dict[str, str]) -> Path:
        for path, source in sources.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
            for folder in list(file.relative_to(tmp_path).parents)[:-1]:
                (tmp_path / folder / "__init__.py").touch()
        return tmp_path

    return build


@pytest.mark.parametrize(
    "planted",
    [
        "import vdfs.core",
        "from vdfs import core",
        "from vdfs.core import Core",
        "def f():\n    import vdfs.core",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vdfs.core import Core",
        "import importlib\nimportlib.import_module('vdfs.core')",
    ],
)
def test_a_planted_upward_import_is_found(house, planted):
    """Each way of writing an import is seen."""
    root = house({"index/scan/walker.py": planted, "vdfs/core.py": "import index.scan.walker\nCore = 1"})
    assert upward_imports(root) == ["index.scan.walker imports vdfs.core"]


def test_a_planted_import_of_the_tests_is_found(house):
    """The product stands without its tests."""
    root = house({"sync/engine.py": "from tests.fakes import clock"})
    assert upward_imports(root) == ["sync.engine imports tests.fakes"]


@pytest.mark.parametrize(
    "planted", ["from . import b", "from .b import x", "def f():\n    from index.model.b import x"]
)
def test_a_planted_circle_of_modules_is_found(house, planted):
    """Relative imports and those inside functions close a circle like any other."""
    root = house({"index/model/a.py": planted, "index/model/b.py": "from ..model import a\nx = 1"})
    assert cycles(module_graph(root)) == ["index.model.a -> index.model.b -> index.model.a"]
    assert cycles(room_graph(root)) == []


def test_a_planted_circle_of_rooms_is_found(house):
    """Four modules in a straight order may still tie two rooms to each other."""
    root = house(
        {
            "vdfs/ops/tags.py": "from vdfs.jobs import table",
            "vdfs/jobs/table.py": "",
            "vdfs/jobs/runner.py": "from vdfs.ops.context import Context",
            "vdfs/ops/context.py": "Context = 1",
        }
    )
    assert cycles(module_graph(root)) == []
    assert cycles(room_graph(root)) == ["vdfs.jobs -> vdfs.ops -> vdfs.jobs"]


def test_an_orderly_house_passes(house):
    """Imports downward, sideways without return, and of other people's packages are fine."""
    root = house(
        {
            "index/model/ids.py": "import os, trio",
            "index/store/unit.py": "from index.model.ids import EntryId\nfrom . import feed",
            "index/store/feed.py": "from ..model import ids",
            "fusefs/mount.py": "from vdfs.core import Core\nimport index.model.ids as ids",
            "vdfs/core.py": "from index.store import unit\nimport testsuite",
        }
    )
    assert upward_imports(root) == []
    assert cycles(module_graph(root)) == []
    assert cycles(room_graph(root)) == []
