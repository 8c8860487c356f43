"""Kill runs at random moments, start them again, and compare their results with an uninterrupted run.

python -m scripts.drill [SCENE ...] [--kills 30] [--seed 0] [--folder FOLDER]
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from scripts.drill_results import results_of_jobs, results_of_run
from src.jobs.job import die_with_parent
from src.records.csv_file import write_csv
from src.records.markdown import markdown_table
from src.system.atomic import disk_of, write_text

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
# Exit statuses: ended in order, killed by the signal before it was handled, or finished before it arrived.
STATUSES = {signal.SIGTERM: (143, -15, 0), signal.SIGINT: (130, -2, 0), signal.SIGKILL: (-9, 0)}
TINY = [
    "batch_size=2",
    "data.num_workers=0",
    "data.train.size=64",
    "data.train.num_scenes=64",
    "data.val.num_scenes=8",
    "task.criterion.num_points=64",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "dim=32",
    "num_queries=5",
    "model.decoder.num_layers=1",
]
TRAIN = ["src.train", "+experiment=eco_parent_shapes", "ckpt_path=auto", *TINY, "trainer.max_steps=60"]


class Scene(NamedTuple):
    """A command to kill, in its own folder."""

    name: str
    words: list[str]  # of the command; {folder} is the scene's folder, {unbroken} the folder of unbroken runs
    results: Callable[[Path], Iterator[tuple[str, Any]]]  # results by name
    share: float  # of the kills

    def command(self, folder: Path, unbroken: Path) -> list[str]:
        """Return the arguments of python -m."""
        return [word.format(folder=folder, unbroken=unbroken) for word in self.words]


RUN = "hydra.run.dir={folder}"
QUIET = "trainer.enable_progress_bar=false"
CROWDED = ["validate_every=5", "data.val.num_scenes=60"]
SAVING = ["validate_every=30", "callbacks.last.steps=1"]
PARENT = "ckpt_path={unbroken}/training/checkpoints/last.ckpt"
LABEL = ["src.label", PARENT, "table={folder}/table", RUN, "shard_size=4", QUIET]
GATE = ["src.train", "+experiment=eco_gate_shapes", "data.table={unbroken}/labelling/table", "ckpt_path=auto", RUN]
GATE += ["batch_size=8", "task.gate.inputs=[mean32]", "trainer.max_epochs=60", "callbacks.early_stopping.patience=60"]
SHORT = ["+experiment=eco_parent_shapes", *TINY, "trainer.max_steps=30", "validate_every=7"]
JOBS = ["-m", "schedule=[0,0,2],[1,1,2]", "seed=0,1", "exits=[1,2]", "hydra.launcher.at_once=2"]
GATES = ["betas=[0.001,0.01]", "gates.trainer.max_epochs=5", "gates.batch_size=8"]
SCENES = (
    Scene("training", [*TRAIN, "validate_every=9", RUN], results_of_run, 0.2),
    Scene("validation", [*TRAIN, *CROWDED, RUN], results_of_run, 0.13),
    Scene("saving", [*TRAIN, *SAVING, RUN], results_of_run, 0.13),
    Scene("labelling", LABEL, results_of_run, 0.13),
    Scene("gate training", [*GATE, QUIET], results_of_run, 0.13),
    Scene("sweep", ["src.train", *SHORT, *JOBS, "hydra.sweep.dir={folder}"], results_of_jobs, 0.14),
    Scene("chain", ["src.eco", *SHORT, *GATES, RUN], results_of_jobs, 0.14),
)


def main() -> None:
    """Kill, start again, compare, and print; exit with status 1 if anything was lost, done twice or wrong."""
    parser = argparse.ArgumentParser("python -m scripts.drill", description=__doc__.splitlines()[0])
    names = [scene.name for scene in SCENES]
    parser.add_argument("scenes", metavar="SCENE", nargs="*", help=f"some of {', '.join(names)}; default: all")
    parser.add_argument("--kills", type=int, default=30, help="total number of kills; default: 30")
    parser.add_argument("--seed", type=int, default=0, help="of the signals and the moments; default: 0")
    parser.add_argument("--folder", type=Path, help="where to run; default: on another disk than the temporary folder")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenes) - set(names):
        parser.error(f"no scene {min(unknown)!r}; there are: {', '.join(names)}")
    wanted = [scene for scene in SCENES if not arguments.scenes or scene.name in arguments.scenes]
    chance = random.Random(arguments.seed)
    rows: list[dict[str, Any]] = []
    place = Path(tempfile.mkdtemp(dir=arguments.folder or another_disk(), prefix="drill"))
    print(f"runs on {disk_of(place)}, temporary files on {disk_of(Path(tempfile.gettempdir()))}")
    for scene in SCENES:
        if scene in wanted or scene.name in ("training", "labelling"):  # which others build on
            seconds = run_unbroken(scene, place)
        if scene in wanted:
            share = scene.share / sum(one.share for one in wanted)
            rows += drill(scene, place, max(round(share * arguments.kills), 1), seconds, chance)
    write_csv(rows, Path("drill/kills.csv"))
    cells = [[str(value).replace("|", " ") for value in row.values()] for row in rows]
    write_text(markdown_table(list(rows[0]), cells) + "\n", Path("drill/kills.md"))
    table = Table(*rows[0], title="kills and results")
    table.columns[-2].overflow = "fold"
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=160).print(table)
    failed = [row for row in rows if row["verdict"] not in ("", "equal")]
    if failed:
        print(f"the runs are kept in {place}")
    else:
        shutil.rmtree(place)
    print(f"{sum(row['signal'] != '' for row in rows)} kills, {len(failed)} faults; drill/kills.md")
    sys.exit(bool(failed))


def another_disk() -> str | None:
    """Return a folder on another disk, to which temporary files cannot be renamed; None if there is no other disk."""
    shared = Path("/dev/shm")
    different = shared.is_dir() and shared.stat().st_dev != Path(tempfile.gettempdir()).stat().st_dev
    return str(shared) if different else None


def start(command: Sequence[str], log: Path) -> subprocess.Popen:
    """Start a command in its own process group, as a terminal does."""
    with open(log, "a") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=stream,
            stderr=stream,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def run_unbroken(scene: Scene, place: Path) -> float:
    """Run a scene without interruption; return its seconds."""
    folder, log = place / "unbroken" / scene.name.replace(" ", "_"), place / "unbroken.log"
    folder.mkdir(parents=True)
    began = time.monotonic()
    if start(scene.command(folder, place / "unbroken"), log).wait():
        sys.exit(f"error: {scene.name} fails even without a kill\n{log.read_text()[-2000:]}")
    return time.monotonic() - began


def drill(scene: Scene, place: Path, kills: int, seconds: float, chance: random.Random) -> Iterator[dict[str, Any]]:
    """Kill a scene `kills` times, then let it finish and compare. Yields a row for each start."""
    folder, log = place / "killed" / scene.name.replace(" ", "_"), place / f"{scene.name}.log"
    folder.mkdir(parents=True)
    command = scene.command(folder, place / "unbroken")
    done: dict[Path, float] = {}  # done.json of finished jobs, and their times
    for number in range(1, kills + 2):
        log.write_text("")
        process = start(command, log)
        if number <= kills:
            signum = SIGNALS[(number - 1) % len(SIGNALS)] if kills >= len(SIGNALS) else chance.choice(SIGNALS)
            moment = chance.uniform(0.1, 0.8) * seconds
            wait(process, moment)
            process.send_signal(signum)
            status = wait(process, 120)
            verdict = "" if status in STATUSES[signum] else f"exit status {status}, expected {STATUSES[signum]}"
            row = {"signal": signum.name, "after": f"{moment:.1f} s"}
        else:
            status = wait(process, 600)
            verdict = compare(scene, folder, place) if status == 0 else f"exit status {status}, expected 0"
            row = {"signal": "", "after": ""}
        again = [str(one.parent.name) for one, age in done.items() if one.is_file() and one.stat().st_mtime != age]
        verdict = f"ran twice: {', '.join(again)}" if again else verdict
        done |= {file: file.stat().st_mtime for file in folder.rglob("done.json") if file.parent != folder}
        words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        said = (words or [""])[-1].replace(f"{folder}/", "").replace(str(folder), scene.name)
        about = {"scene": scene.name, "start": number, **row, "status": status, "said": said[:90], "verdict": verdict}
        print(*about.values(), sep="  ", flush=True)  # it takes minutes
        yield about


def wait(process: subprocess.Popen, seconds: float) -> int | None:
    """Return the exit status, None if the process still runs after some seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def compare(scene: Scene, folder: Path, place: Path) -> str:
    """Return "equal", or the names of results that differ from the uninterrupted run."""
    unbroken = place / "unbroken" / folder.name
    expected, found = dict(scene.results(unbroken)), dict(scene.results(folder))
    differing = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    return f"differs: {', '.join(sorted(differing))}" if differing else "equal"


if __name__ == "__main__":
    main()
