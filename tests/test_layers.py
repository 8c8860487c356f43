"""Who may import whom."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"

FRAMEWORKS = {"lightning", "hydra", "omegaconf", "wandb"}
ROOMS = {f"src.{room}" for room in ("data", "models", "losses", "metrics", "tasks", "callbacks", "loggers")}
FORBIDDEN = {
    "models": FRAMEWORKS | ROOMS - {"src.models"},
    "losses": FRAMEWORKS | ROOMS - {"src.losses", "src.models"},
    "metrics": FRAMEWORKS | ROOMS - {"src.metrics"},
    "weights": FRAMEWORKS | ROOMS,
    "data": FRAMEWORKS - {"lightning"} | ROOMS - {"src.data"},
    "tasks": {"hydra", "omegaconf", "wandb", "src.data", "src.callbacks", "src.loggers"},
    "reporting": FRAMEWORKS | {"torch", "src.weights"} | ROOMS - {"src.metrics"},
    "loggers": FRAMEWORKS - {"lightning", "wandb"} | ROOMS - {"src.loggers"},
    "callbacks": {"hydra", "omegaconf", "wandb", "src.models", "src.data", "src.losses"},
}


def imports(file: Path) -> set[str]:
    """Modules a file imports, by full name."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("file", sorted(SRC.glob("*/*.py")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_room_imports_only_what_it_may(file: Path) -> None:
    """Networks know no framework, losses and metrics no data, and so on down the table."""
    reached = {name for name in imports(file) for f in FORBIDDEN[file.parent.name] if f"{name}.".startswith(f"{f}.")}
    assert not reached


@pytest.mark.parametrize("file", sorted(SRC.glob("*.py")), ids=lambda file: file.name)
def test_entry_points_name_nothing_of_ours(file: Path) -> None:
    """What runs is said by the config; entry points import each other only."""
    assert not {name for name in imports(file) for room in ROOMS if name.startswith(room)}
