"""Run folders on disk: what each run scored, its command and its settings, and why a folder cannot be read."""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # a dependency of OmegaConf, which wrote the files

from src.records.flatten import flatten
from src.records.run_folder import finished
from src.records.scores import GATE_FILE, JUDGE_FILE, NOTHING, QUALITIES, SCORES_FILE, policies_of, quality_of
from src.reporting.latency import file_of, times_of
from src.reporting.run_settings import Settings

INSIDE = {".hydra", "checkpoints", "pictures", "table", "wandb"}  # folders inside a run
LATENCY = "latency_ms"
FORMATS: dict[str, tuple[str, Sequence[str]]] = {  # of score files: the cost of every policy, and the qualities
    SCORES_FILE: ("total_gflops", QUALITIES),
    GATE_FILE: ("gflops", ["quality"]),
}
Scores = dict[str, dict[str, float]]


class Run(NamedTuple):
    """One file of scores, and what lies beside it."""

    folder: Path  # as given on the command line, or found below that
    source: str  # scores.json or gate.json
    scores: Scores  # by policy: exit2, gate, oracle, random
    classes: dict[str, Scores]  # by policy, class and score; empty if they were not written
    content: dict[str, Any]  # of the whole file
    settings: Settings
    config: str  # text of the configuration; empty if it was not written
    command: str
    finished: bool
    age: float  # seconds since 1970 when the file was written
    measured: Mapping[str, Mapping[str, float]] = {}  # milliseconds by table of latency.json and policy

    @property
    def cost(self) -> str:
        """The cost to draw quality against: at the images' own sizes if all policies with a quality have it."""
        if self.source == GATE_FILE:
            return "gflops"
        scored = [row for row in self.scores.values() if quality_of([row])]
        return "image_gflops" if all("image_gflops" in row for row in scored) else "total_gflops"

    @property
    def file(self) -> Path:
        return self.folder / self.source

    @property
    def provenance(self) -> dict[str, Any]:
        """Git revision, torch version and device, as far as they were written."""
        made_by = self.content.get("made_by")
        return made_by if isinstance(made_by, dict) else {}

    @property
    def device(self) -> str:
        return str(self.provenance.get("device") or "a machine not recorded")

    @property
    def made_by(self) -> str:
        """The provenance in one line."""
        prefixes = {"git": "git ", "torch": "torch ", "device": ""}
        facts = [f"{prefix}{self.provenance[name]}" for name, prefix in prefixes.items() if self.provenance.get(name)]
        return " · ".join(facts) or "not recorded"

    @property
    def latency_of_deepest(self) -> float | None:
        """Milliseconds at the deepest exit that was timed; None if there is none."""
        timed = {policy: row[LATENCY] for policy, row in self.scores.items() if LATENCY in row}
        depths = [int(policy.removeprefix("exit")) for policy in timed if policy.startswith("exit")]
        return timed[f"exit{max(depths)}"] if depths else None

    @property
    def times(self) -> Mapping[str, Mapping[str, float]]:
        """Milliseconds by machine and policy: of the run's own device, and of the tables of its model."""
        own = {policy: row[LATENCY] for policy, row in self.scores.items() if LATENCY in row}
        return {**({self.device: own} if own else {}), **self.measured}

    def timed(self, machine: str) -> "Run":
        """Return the run with the latencies of one machine among its scores, and no others."""
        times = self.times.get(machine, {})
        scores = {
            policy: {name: value for name, value in row.items() if name != LATENCY}
            | ({LATENCY: times[policy]} if policy in times else {})
            for policy, row in self.scores.items()
        }
        return self._replace(scores=scores)


class Skipped(NamedTuple):
    """A folder or file that is left out of a report, and the reason."""

    place: Path
    why: str


def find(places: Sequence[Path]) -> tuple[list[Run], list[Skipped]]:
    """Return all runs in some folders and below them, each once, and what had to be left out."""
    runs: list[Run] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()
    for place in places:
        folders = list(run_folders(place))
        if not folders and next(place.rglob(JUDGE_FILE), None) is None:
            skipped.append(Skipped(place, nothing_in(place)))
        for folder, sources in folders:
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            if not sources:
                skipped.append(Skipped(folder, "neither scores.json nor gate.json: it failed, or still runs"))
            for source in sources:
                try:
                    runs.append(read_run(folder, source))
                except ValueError as error:
                    skipped.append(Skipped(folder / source, str(error)))
    return with_times(runs, skipped), skipped


def with_times(runs: Sequence[Run], skipped: list[Skipped]) -> list[Run]:
    """Return runs with what the latency.json of their models say; a damaged one is added to `skipped`, once."""
    timed = []
    for run in runs:
        place = file_of(run.folder, run.settings.values)
        try:
            measured = times_of(run.folder, run.scores, run.settings.values) if run.source == SCORES_FILE else {}
        except ValueError as error:
            measured = {}
            if place is not None and place not in {one.place for one in skipped}:
                skipped.append(Skipped(place, str(error)))
        timed.append(run._replace(measured=measured))
    return timed


def nothing_in(place: Path) -> str:
    """Return why a place contains no run."""
    if not place.exists():
        return "no such folder"
    return "no run in it: no scores.json, no gate.json" if place.is_dir() else "a file; expected a folder of runs"


def run_folders(place: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folders of started runs in alphabetical order, each with its files of scores."""
    for folder, folders, files in os.walk(place):
        sources = [name for name in FORMATS if name in files]
        labels = "table" in folders or any(name.endswith(".parquet") for name in files)
        if sources or (not labels and (".hydra" in folders or {"begun", "metrics.csv"} & set(files))):
            yield Path(folder), sources
        folders[:] = sorted(set(folders) - INSIDE)


def read_run(folder: Path, source: str) -> Run:
    """Read one run. Raises ValueError, in one line, for scores that are damaged or of another version."""
    file = folder / source
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be read, perhaps cut short ({str(error).splitlines()[0]})") from error
    try:
        scores = scores_of(content, source)
    except (AttributeError, KeyError, TypeError) as error:
        found = f"it lacks {error}" if isinstance(error, KeyError) else "its entries have other types"
        raise ValueError(f"not in the format of this version: {found}; run it again with this version") from error
    config = text_of(folder / ".hydra/config.yaml")
    overrides = parsed(text_of(folder / ".hydra/overrides.yaml"))
    begun = text_of(folder / "begun")
    command = command_of(folder, overrides, begun)
    settings = Settings(flatten(parsed(config)), [str(one) for one in overrides or []], command, str(folder))
    ended, age = not begun or finished(folder), file.stat().st_mtime
    return Run(folder, source, scores, classes_of(content), content, settings, config, command, ended, age)


def scores_of(content: Any, source: str) -> Scores:
    """Return scores by policy. Raises ValueError, AttributeError, KeyError or TypeError for another format.

    Every policy has a cost and a quality. Beside one with a quality, others may have a latency instead.
    """
    cost, qualities = FORMATS[source]
    if source == GATE_FILE and not isinstance(content["beta"], int | float):
        raise ValueError(f"beta is {content['beta']!r}, expected a number")
    rows = policies_of(content)
    if not rows:
        raise ValueError("no scores in it")
    if not any(name in row for row in rows.values() for name in qualities):
        raise ValueError(f"{NOTHING}: no {' or '.join(qualities)} in it")
    for policy, row in rows.items():
        if not re.fullmatch(r"exit\d+|gate|oracle|random", policy):
            raise ValueError(f"scores of {policy!r}, expected those of exits, a gate, the oracle or random exits")
        for name, value in row.items():
            if type(value) not in (int, float):
                raise ValueError(f"{policy}: {name} is {value!r}, expected a number")
        if cost not in row:
            raise KeyError(f"{policy}: {cost}")
        if not {*qualities, LATENCY} & row.keys():
            raise KeyError(f"{policy}: {', '.join(qualities)}")
    return rows


def classes_of(content: dict[str, Any]) -> dict[str, Scores]:
    """Return scores by policy, class and score; empty if they are missing or damaged."""
    classes = content.get("classes", {})
    try:
        numbers = [value for row in classes.values() for scores in row.values() for value in scores.values()]
    except AttributeError:
        return {}
    return classes if all(type(number) in (int, float) for number in numbers) else {}


def command_of(folder: Path, overrides: Any, begun: str) -> str:
    """Return the command line of a run; empty if it was not recorded."""
    job = re.search(r"^  job:\n    name: (\w+)$", text_of(folder / ".hydra/hydra.yaml"), re.MULTILINE)
    if job and isinstance(overrides, list):
        return shlex.join(["python", "-m", f"src.{job[1]}", *map(str, overrides)])
    return f"python -m {begun}" if begun else ""


def text_of(file: Path) -> str:
    """Return the text of a file; empty if it cannot be read."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def parsed(text: str) -> Any:
    """Return the content of YAML, None if it is damaged."""
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return None
