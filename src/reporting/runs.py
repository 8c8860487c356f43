"""Run folders as they lie on disk: what each scored, by what command and settings, and which cannot be read."""

import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # comes with OmegaConf, which wrote the files

from src.records.flatten import flatten
from src.records.run_folder import finished
from src.records.scores import NOTHING, QUALITIES, quality_of
from src.reporting.run_settings import Settings

INSIDE = {".hydra", "checkpoints", "pictures", "table", "wandb"}  # folders of a run, not of runs
SOURCES: tuple[str, ...] = ("scores.json", "gate.json")
LATENCY = "latency_ms"
Scores = dict[str, dict[str, float]]


class Run(NamedTuple):
    """What one file of scores says, and what lies beside it."""

    folder: Path  # as it was named, or found below what was named
    source: str  # scores.json or gate.json
    scores: Scores  # by who chose the exits: exit2, gate, oracle, random
    classes: dict[str, Scores]  # by who, class and score; empty if they were not written
    about: dict[str, Any]  # the whole file
    settings: Settings
    config: str  # as it was written; empty if it was not
    command: str
    finished: bool
    age: float  # seconds since 1970 when the file was written

    @property
    def cost(self) -> str:
        """What quality is drawn against: costs at the images' own sizes where all rows with a quality have them."""
        if self.source == "gate.json":
            return "gflops"
        scored = [row for row in self.scores.values() if quality_of([row])]
        return "image_gflops" if all("image_gflops" in row for row in scored) else "total_gflops"

    @property
    def file(self) -> Path:
        return self.folder / self.source

    @property
    def maker(self) -> dict[str, Any]:
        """What made the numbers, as far as it was written."""
        facts = self.about.get("made_by")
        return facts if isinstance(facts, dict) else {}

    @property
    def device(self) -> str:
        """The class of machine."""
        return str(self.maker.get("device") or "a machine not recorded")

    @property
    def latency_of_deepest(self) -> float | None:
        """Milliseconds at the deepest exit that was timed."""
        exits = {int(who[4:]): row for who, row in self.scores.items() if who.startswith("exit")}
        timed = [row[LATENCY] for _, row in sorted(exits.items()) if LATENCY in row]
        return timed[-1] if timed else None

    @property
    def made_by(self) -> str:
        """Git revision, torch and class of machine in one line."""
        names = {"git": "git ", "torch": "torch ", "device": ""}
        said = [f"{prefix}{self.maker[name]}" for name, prefix in names.items() if self.maker.get(name)]
        return " · ".join(said) or "not recorded"


class Skipped(NamedTuple):
    """What could not be reported, and why."""

    place: Path
    why: str


def find(places: Sequence[Path]) -> tuple[list[Run], list[Skipped]]:
    """All runs in some folders and below them, each once, and what had to be left out."""
    runs: list[Run] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()
    for place in places:
        found = 0
        for folder, files in run_folders(place):
            found += 1
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            for source in files:
                try:
                    runs.append(read(folder, source))
                except ValueError as error:
                    skipped.append(Skipped(folder / source, str(error)))
            if not files:
                skipped.append(Skipped(folder, "neither scores.json nor gate.json: it failed, or still runs"))
        if not found:
            skipped.append(Skipped(place, nothing_in(place)))
    return runs, skipped


def nothing_in(place: Path) -> str:
    """Why a place holds no run."""
    if not place.exists():
        return "no such folder"
    return "no run in it: no scores.json, no gate.json" if place.is_dir() else "a file; expected a folder of runs"


def run_folders(place: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders that a run was begun in, in order, with those files of scores that they have."""
    for folder, folders, files in os.walk(place):
        sources = [name for name in SOURCES if name in files]
        labels = "table" in folders or any(name.endswith(".parquet") for name in files)
        if sources or (not labels and (".hydra" in folders or {"begun", "metrics.csv"} & set(files))):
            yield Path(folder), sources
        folders[:] = sorted(set(folders) - INSIDE)


def read(folder: Path, source: str) -> Run:
    """One run. Raises ValueError, in one line, for scores that are cut short or not as they are written today."""
    file = folder / source
    try:
        about = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be read, perhaps cut short ({str(error).splitlines()[0]})") from error
    try:
        scores = {"scores.json": of_exits, "gate.json": of_choices}[source](about)
    except (AttributeError, KeyError, TypeError) as error:
        lacks = f"it lacks {error}" if isinstance(error, KeyError) else "its entries are others"
        raise ValueError(f"not as it is written today: {lacks}; run it again with this version") from error
    config = text_of(folder / ".hydra/config.yaml")
    typed = parsed(text_of(folder / ".hydra/overrides.yaml"))
    begun = text_of(folder / "begun")
    command = command_of(folder, typed, begun)
    settings = Settings(flatten(parsed(config)), [str(one) for one in typed or []], command, str(folder))
    age = file.stat().st_mtime
    return Run(
        folder, source, scores, of_classes(about), about, settings, config, command, not begun or finished(folder), age
    )


def of_exits(about: Any) -> Scores:
    """Scores of every exit and of a gate."""
    rows = {f"exit{int(depth)}": row for depth, row in about["exits"].items()}
    rows |= {"gate": about["gate"]} if "gate" in about else {}
    return checked(rows, "total_gflops", QUALITIES)


def of_choices(about: Any) -> Scores:
    """Scores of a gate, of the oracle, of chance, and of every exit for all."""
    if not isinstance(about["beta"], int | float):
        raise ValueError(f"beta is {about['beta']!r}, expected a number")
    return checked(dict(about["outcomes"]), "gflops", ("quality",))


def of_classes(about: dict[str, Any]) -> dict[str, Scores]:
    """Scores of classes; none where something else stands in their place."""
    classes = about.get("classes", {})
    try:
        numbers = [one for row in classes.values() for scores in row.values() for one in scores.values()]
    except AttributeError:
        return {}
    return classes if all(type(number) in (int, float) for number in numbers) else {}


def checked(rows: Scores, cost: str, qualities: Sequence[str]) -> Scores:
    """The rows, if all have a cost and only numbers, and a quality or, beside one that has, a latency alone."""
    if not rows:
        raise ValueError("no scores in it")
    for who, row in rows.items():
        if not re.fullmatch(r"exit\d+|gate|oracle|random", who):
            raise ValueError(f"scores of {who!r}, expected those of exits, a gate, the oracle or chance")
        wrong = [name for name, value in row.items() if type(value) not in (int, float)]
        if wrong:
            raise ValueError(f"{who}: {wrong[0]} is {row[wrong[0]]!r}, expected a number")
        if cost not in row:
            raise KeyError(f"{who}: {cost}")
    if not any(name in row for row in rows.values() for name in qualities):
        raise ValueError(f"{NOTHING}: no {' or '.join(qualities)} in it")
    for who, row in rows.items():
        if not {*qualities, LATENCY} & set(row):
            raise KeyError(f"{who}: {', '.join(qualities)}")
    return rows


def command_of(folder: Path, typed: Any, begun: str) -> str:
    """What one types to have this run; empty if nothing tells."""
    job = re.search(r"^  job:\n    name: (\w+)$", text_of(folder / ".hydra/hydra.yaml"), re.MULTILINE)
    if job and isinstance(typed, list):
        return shlex.join(["python", "-m", f"src.{job[1]}", *map(str, typed)])
    return f"python -m {begun}" if begun else ""


def text_of(file: Path) -> str:
    """A file's text; empty if there is none."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def parsed(text: str) -> Any:
    """YAML; None for what is damaged."""
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return None
