"""Who may import whom: the table below is the architecture."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
COMMANDS = {
    "train",
    "evaluate",
    "label",
    "eco",
    "predict",
    "export",
    "cost",
    "validate_data",
    "report",
    "judge",
    "measure",
    "plan",
}
CONFIGURATION = frozenset({"hydra", "omegaconf"})
USED_BY_COMMANDS = frozenset(
    {"config", "jobs", "judging", "painting", "predictor", "records", "reporting", "system", "weights"}
)

# What each room may import of ours, itself aside. A command may import these rooms and no network, data set or loss.
MAY_IMPORT = {
    "system": set(),
    "records": {"system"},
    "config": {"records", "system", "weights"},
    "jobs": {"config", "records", "system"},
    "weights": {"system"},
    "models": {"weights"},
    "losses": {"models"},
    "metrics": set(),
    "exit_table": {"records", "system"},
    "data": {"exit_table", "painting", "system"},
    "prediction": {"data", "painting", "system"},
    "tasks": {"losses", "metrics", "models", "records", "weights"},
    "judging": {"exit_table", "metrics", "records", "system", "tasks"},
    "exporting": {"metrics", "models", "records", "system", "tasks", "weights"},
    "callbacks": {"loggers", "metrics", "painting", "records", "system", "weights"},
    "loggers": {"config", "records", "system"},
    "reporting": {"metrics", "records", "system"},
    "painting": set(),
    "predictor": {"config"},
    **dict.fromkeys(COMMANDS, USED_BY_COMMANDS),
}
# Frameworks that a room must not know.
UNKNOWN = {
    **dict.fromkeys(("models", "losses", "metrics", "weights"), CONFIGURATION | {"lightning", "wandb"}),
    **dict.fromkeys(
        ("data", "exit_table", "prediction", "tasks", "exporting", "callbacks", "judging"), CONFIGURATION | {"wandb"}
    ),
    "loggers": CONFIGURATION,
    "reporting": {"lightning", "torch", "wandb", *CONFIGURATION},
    "records": {"lightning", "wandb", *CONFIGURATION},
    "system": {"wandb", *CONFIGURATION},
}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports(file: Path) -> set[str]:
    """The modules that a file imports when it runs, by full name."""
    tree = ast.parse(file.read_text())
    typing_only = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ]
    left_out = {child for node in typing_only for child in ast.walk(node)}
    names = set()
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            is_package = (ROOT / module.replace(".", "/")).is_dir()
            names |= {f"{module}.{alias.name}" for alias in node.names} if is_package else {module}
    return names


FILES = sorted(file for file in SRC.rglob("*.py") if file != SRC / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_room_imports_only_what_it_may(file: Path) -> None:
    """Networks know no framework, losses and metrics no data, commands nothing that the configuration names."""
    room = room_of(module_of(file))
    assert room in MAY_IMPORT, f"src/{room} is new: add it to MAY_IMPORT with the rooms that it may import"
    names = imports(file)
    reached = {room_of(name) for name in names if name.startswith("src.")} - {room}
    assert reached <= MAY_IMPORT[room], f"{room} may not import {', '.join(sorted(reached - MAY_IMPORT[room]))}"
    frameworks = {name.split(".")[0] for name in names}
    assert not frameworks & UNKNOWN.get(room, set())


def test_no_room_is_reached_from_the_rooms_it_imports() -> None:
    """The rooms can be put in an order in which each imports earlier ones only."""
    left = dict(MAY_IMPORT)
    while free := [room for room, used in left.items() if not used & left.keys()]:
        for room in free:
            del left[room]
    assert not left


def test_no_import_goes_in_a_circle() -> None:
    """Nor do the files within a room."""
    modules = {module_of(file): imports(file) for file in FILES}
    left = {module: used & modules.keys() - {module} for module, used in modules.items()}
    while free := [module for module, used in left.items() if not used & left.keys()]:
        for module in free:
            del left[module]
    assert not left


def test_the_documentation_has_this_table() -> None:
    """Row by row, all commands as one."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = dict(re.findall(r"^\| `?(\w+)`? \| ((?:`\w+`(?:, )?)+|nothing of ours) \|$", text, re.MULTILINE))
    rooms = {room: used for room, used in MAY_IMPORT.items() if room not in COMMANDS}
    expected = rooms | {"commands": USED_BY_COMMANDS}
    assert {place: set(re.findall(r"`(\w+)`", used)) for place, used in rows.items()} == expected


@pytest.mark.parametrize("room", sorted(file.parent for file in SRC.rglob("__init__.py")), ids=lambda room: room.name)
def test_every_room_says_what_lives_there(room: Path) -> None:
    """In the docstring of its `__init__.py`."""
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
