"""Settings of runs: which runs differ in their seed only, what they are scored on, and what to call them."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

DIALS = ("beta", "budget_gflops")  # along which a gate's line runs
RUNNING = ("ckpt_path", "trainer.devices", "trainer.enable", "data.num_workers")  # how it ran, not what it is
UNNAMED = ("seed", "name", "paths.", "callbacks.", "logger.", "hydra.", *RUNNING, *DIALS)
COMMON = {"/", "checkpoints", "best.ckpt", "last.ckpt"}  # parts of paths that tell nothing
LONGEST = 3  # settings in a label
POINTER = r"\$\{([\w.]+)\}"
IMAGES = ("_target_", "annotation_file", "image_folder", "classes", "num_scenes", "size", "seed")
DATA = ("name", "data.", "exits", "segmentation")  # what the oracle and fixed exits of a table depend on
LAYOUTS = (  # a kind of annotation file and its name, or a class list and the folder of its pictures; what that is
    ("CocoPanoptic", "panoptic_{}2017", "COCO {}2017"),
    ("CocoInstances", "instances_{}2017", "COCO {}2017"),
    ("CityscapesPanoptic", "cityscapes_panoptic_{}", "Cityscapes {}"),
    ("cityscapes", "{}", "Cityscapes {}"),
    ("CocoPanoptic", "ade20k_panoptic_{}", "ADE20K {}"),
    ("CocoInstances", "ade20k_instance_{}", "ADE20K {}"),
    ("camvid", "{}", "CamVid {}"),
)
KNOWN = {
    ("ade20k", "training"): "ADE20K train",
    ("ade20k", "validation"): "ADE20K val",
    **{
        (source, file.format(split)): name.format(split)
        for source, file, name in LAYOUTS
        for split in ("train", "val", "test")
    },
}


class Settings(NamedTuple):
    """What a run was given."""

    values: dict[str, Any]  # by dotted name; empty if no configuration was written
    typed: list[str]  # overrides
    command: str
    folder: str

    @property
    def seed(self) -> Any:
        if self.values:
            return self.values.get("seed")
        found = re.search(r"(?<!\S)seed=(\S+)", self.command)
        return found[1] if found else None

    @property
    def name(self) -> str:
        return str(self.values.get("name") or "/".join(PurePosixPath(self.folder).parts[-2:]))

    def but(self, *dropped: str) -> dict[str, Any]:
        """All but the seed and others; paths that say one of them, as seed0 does, say seed*."""
        if self.values:
            gone = {name: self.values.get(name) for name in ("seed", *dropped)}
            return {name: unsaid(value, gone) for name, value in self.values.items() if name not in gone}
        if not self.command:
            return {"folder": self.folder}
        words = (word for word in self.command.split() if word.split("=")[0] not in ("seed", "hydra.run.dir", *dropped))
        return {"command": unsaid(" ".join(words), {"seed": self.seed})}

    def data(self) -> dict[str, Any]:
        """What decides which images are scored at which exits, not who chooses."""
        kept = self.but(*DIALS)
        if not self.values:
            return kept
        return {name: value for name, value in kept.items() if name.startswith(DATA) and name != "data.inputs"}

    def resolved(self, name: str) -> Any:
        """A value, with what it points to."""
        value = self.values.get(name)
        if not isinstance(value, str):
            return value
        pointer = re.fullmatch(POINTER, value)
        return self.resolved(pointer[1]) if pointer else re.sub(POINTER, lambda one: str(self.resolved(one[1])), value)

    def data_set(self) -> str:
        """What is scored on, in words."""
        images = {key: self.resolved(f"data.val.{key}") for key in IMAGES}
        part = self.values.get("trainer.limit_val_batches")
        some = "" if part is None else f", {part} of its batches"
        known = images_of(images, self.values.get("segmentation", ""))
        return f"{known}{some}" if known else "data unknown, no configuration in the run folder"


def images_of(data: Mapping[str, Any], task: Any) -> str:
    """Which images, in words, by the settings of a data set; empty if these do not tell."""
    kind = str(data.get("_target_") or "").rpartition(".")[2]
    if kind == "Shapes":
        number, size, seed = (data.get(key) for key in ("num_scenes", "size", "seed"))
        return f"{number} procedural scenes of {size}x{size} (seed {seed})"
    listed = data.get("annotation_file")
    file = PurePosixPath(str(listed or data.get("image_folder")))  # of index masks, the folder says the split
    known = KNOWN.get((kind if listed else str(data.get("classes")), file.stem), f"{file.parent.name} {file.stem}")
    return f"{known}, {task}" if kind else ""


def identity(settings: Mapping[str, Any]) -> str:
    """Equal for equal settings."""
    return json.dumps(settings, sort_keys=True, default=str)


def unsaid(value: Any, gone: Mapping[str, Any]) -> Any:
    """A path that says some settings, for all their values."""
    for name, given in gone.items() if isinstance(value, str) else ():
        value = re.sub(rf"({name}[=_-]?){re.escape(str(given))}(?!\.?\d)", r"\1*", value)
    return value


def labels(all_settings: Mapping[str, Settings], data_only: bool = False) -> dict[str, str]:
    """A short name for each: that of its experiment, and what others of that name have otherwise."""
    schedules = {identity({"": settings.values.get("schedule")}) for settings in all_settings.values()}
    found: dict[str, str] = {}
    all_names = dict.fromkeys(settings.name for settings in all_settings.values())
    for name in all_names:
        same = {key: settings for key, settings in all_settings.items() if settings.name == name}
        values = {key: one.data() if data_only else one.but(*DIALS) for key, one in same.items()}
        differing = differences(list(values.values()))
        for key, settings in same.items():
            said = told(values[key], differing, settings.typed)
            schedule = settings.values.get("schedule")
            if schedule and len(schedules) > 1 and "schedule" not in differing:
                said.insert(0, f"schedule {spell(schedule, [])}")
            label = ", ".join([name, *said] if len(all_names) > 1 or not said else said)
            twins = sum(other == label or other.startswith(f"{label} (") for other in found.values())
            found[key] = f"{label} ({twins + 1})" if twins else label
    return found


def differences(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What some settings have otherwise than others: their values, by name."""
    names = dict.fromkeys(name for one in settings for name in one)
    names = dict.fromkeys(name for name in names if not name.startswith(UNNAMED) and not name.endswith("_target_"))
    values = {name: [one.get(name) for one in settings] for name in names}
    return {name: some for name, some in values.items() if any(value != some[0] for value in some)}


def told(settings: Mapping[str, Any], differing: Mapping[str, list[Any]], typed: Sequence[str]) -> list[str]:
    """The first of the differing settings, those that someone typed before others."""
    given = {one.lstrip("+").partition("=")[0] for one in typed}
    names = [name for name in differing if settings.get(name) is not None and not points(settings[name])]
    names.sort(key=lambda name: name not in given)
    return [f"{name.rpartition('.')[2]} {spell(settings[name], differing[name])}" for name in names[:LONGEST]]


def points(value: Any) -> bool:
    """Whether a value is that of another setting, which will be told."""
    return isinstance(value, str) and value.startswith("${")


def spell(value: Any, others: Sequence[Any]) -> str:
    """A value as short as it can be; of a path what other paths do not have."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, str) and "/" in value:
        paths = [set(PurePosixPath(other).parts) for other in others if isinstance(other, str)]
        shared = set.intersection(*paths) if len(paths) > 1 else set()
        parts = [part for part in PurePosixPath(value).parts if part not in shared | COMMON]
        return "/".join(parts[-2:]) or value
    return str(value)
