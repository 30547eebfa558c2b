"""The plan of the house, held by a test: imports point down, there is no circle, and rooms have names of the field.

A room is a package or a module directly under drivesim/; training/ and eval/ are rooms, too.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = {
    "geometry": 1, "config": 1,
    "datatypes": 2, "runs": 2,
    "interfaces": 3,
    "town": 4, "worlds": 4, "logs": 4, "models": 4, "planning": 4, "control": 4, "scoring": 4, "drive": 4,
    "episodes": 4,
    "carla_server": 5, "build": 5, "recording": 5,
    "suite": 6, "reports": 6, "training": 6,
    "cli": 7, "preflight": 7, "eval": 7,
}  # fmt: skip

# The few arrows within a floor; each has its reason in CONTRIBUTING.md.
LEVEL_ARROWS = {("worlds", "town"), ("drive", "worlds"), ("cli", "preflight")}
# What a room must do without, whatever its floor: it runs where these are not.
FORBIDDEN = {
    "town": {"torch", "socket", "asyncio"},
    "carla_server": {"torch"},
    "geometry": {"torch", "carla"},
    "datatypes": {"torch", "carla"},
}
CARLA_USERS = ("town/opendrive.py", "worlds/")  # the only places that may import the carla package
SHAPELESS = {"utils", "util", "helpers", "helper", "common", "misc", "stuff", "tools"}


def sources() -> list[Path]:
    return [path for folder in ("drivesim", "training", "eval") for path in sorted((ROOT / folder).rglob("*.py"))]


def room_of(path: Path) -> str | None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "drivesim":
        return parts[0]
    return None if parts[1] == "__init__" else parts[1]


@cache
def imported(path: Path) -> list[tuple[str, int]]:
    """Absolute module names with their lines; `from drivesim import x` counts as drivesim.x."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno}: relative import; write the whole name"
            module = node.module or ""
            names += (
                [(f"{module}.{alias.name}", node.lineno) for alias in node.names]
                if module == "drivesim"
                else [(module, node.lineno)]
            )
    return names


def arrows() -> list[tuple[str, str, str]]:
    """(room, imported room, place) for all imports between our rooms."""
    found = []
    for path in sources():
        room = room_of(path)
        for name, line in imported(path):
            parts = name.split(".")
            if parts[0] == "drivesim" and len(parts) > 1:
                target = parts[1]
            elif parts[0] in ("training", "eval"):
                target = parts[0]
            else:
                continue
            if room is not None and target != room and (target in FLOORS):
                found.append((room, target, f"{path.relative_to(ROOT)}:{line}"))
    return found


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in sources()} - {None}
    assert rooms <= set(FLOORS), (
        f"rooms without a floor (add them to FLOORS and to CONTRIBUTING.md): {rooms - set(FLOORS)}"
    )


def test_imports_point_down() -> None:
    wrong = [
        f"{place}: {room} (floor {FLOORS[room]}) imports {target} (floor {FLOORS[target]})"
        for room, target, place in arrows()
        if FLOORS[target] >= FLOORS[room] and (room, target) not in LEVEL_ARROWS
    ]
    assert not wrong, "\n".join(wrong)


def test_there_is_no_circle() -> None:
    below: dict[str, set[str]] = {room: set() for room in FLOORS}
    for room, target, _ in arrows():
        below[room].add(target)
    while free := [room for room, targets in below.items() if not targets]:
        for room in free:
            del below[room]
        for targets in below.values():
            targets.difference_update(free)
    assert not below, f"rooms in a circle: {below}"


def test_the_library_does_not_know_its_studies() -> None:
    late = {"drivesim/cli.py"}  # `drivesim train` reaches training/ when it is called, and says so where there is none
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources()
        if path.is_relative_to(ROOT / "drivesim")
        for name, line in imported(path)
        if name.split(".")[0] == "eval"
        or (name.split(".")[0] == "training" and str(path.relative_to(ROOT)) not in late)
    ]
    assert not wrong
    top = ast.parse((ROOT / "drivesim/cli.py").read_text()).body
    modules = [node.module or "" for node in top if isinstance(node, ast.ImportFrom)]
    assert not any(module.startswith("training") for module in modules), (
        "cli.py must reach training/ inside the command"
    )


def test_training_does_not_know_eval() -> None:
    assert not [place for room, target, place in arrows() if (room, target) == ("training", "eval")]


def test_rooms_do_without() -> None:
    wrong = []
    for path in sources():
        room = room_of(path)
        for name, line in imported(path):
            package = name.split(".")[0]
            if package in FORBIDDEN.get(room or "", ()):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {package}")
            inside = path.is_relative_to(ROOT / "drivesim")
            if (
                package == "carla"
                and inside
                and not path.relative_to(ROOT / "drivesim").as_posix().startswith(CARLA_USERS)
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports carla; only {', '.join(CARLA_USERS)} may")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_unpickled() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}" for path in sources() for name, line in imported(path)
        if name.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib")
    ]  # fmt: skip
    assert not wrong


@pytest.mark.parametrize("folder", ["drivesim", "training", "eval", "tests", "tools"])
def test_files_have_names_of_the_field(folder: str) -> None:
    shapeless = [
        path for path in (ROOT / folder).rglob("*") if path.stem.lower() in SHAPELESS and path != ROOT / "tools"
    ]
    assert not shapeless


def test_nothing_hides_a_package_that_we_need() -> None:
    assert not (ROOT / "carla").exists()
    assert not list((ROOT / "drivesim").rglob("carla.py"))
    assert not list((ROOT / "tests").rglob("__init__.py")), "an __init__.py under tests/ shadows training/"
