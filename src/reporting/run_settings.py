"""Settings of runs: which runs differ in their seed only, which images they are scored on, and labels for them."""

import json
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeVar

DIALS = ("beta", "budget_gflops", "budget_ms")  # settings that vary along the line of a gate
# These do not change the results.
RUNNING = ("ckpt_path", "latency", "trainer.devices", "trainer.enable", "data.num_workers")
UNNAMED = ("seed", "name", "paths.", "callbacks.", "logger.", "hydra.", *RUNNING, *DIALS)  # never part of a label
COMMON = {"/", "checkpoints", "best.ckpt", "last.ckpt"}  # parts of paths that tell no runs apart
LONGEST = 3  # settings in a label
POINTER = r"\$\{([\w.]+)\}"
IMAGES = ("_target_", "annotation_file", "image_folder", "classes", "num_scenes", "size", "seed")
DATA = ("name", "data.", "exits", "segmentation")  # what the oracle and fixed exits of a table depend on
LAYOUTS = (  # class of the data set and its annotation file, or class list and image folder; name of the data set
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
Key = TypeVar("Key", bound=Hashable)


class Settings(NamedTuple):
    """The settings of a run."""

    values: dict[str, Any]  # by dotted name; empty if no configuration was written
    overrides: list[str]
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

    def without_seed(self, *dropped: str) -> dict[str, Any]:
        """Return all settings but the seed and `dropped`; without a configuration, the command or else the folder.

        A path that contains a dropped value has `*` instead, so that runs which differ in nothing else are equal.
        """
        hidden = {name: self.values.get(name) for name in ("seed", *dropped)}
        if self.values:
            return {name: masked(value, hidden) for name, value in self.values.items() if name not in hidden}
        if not self.command:
            return {"folder": self.folder}
        words = [word for word in self.command.split() if word.split("=")[0] not in (*hidden, "hydra.run.dir")]
        return {"command": masked(" ".join(words), {"seed": self.seed})}

    def of_data(self) -> dict[str, Any]:
        """Return the settings that decide which images are scored at which exits, whatever the policy."""
        kept = self.without_seed(*DIALS)
        if not self.values:
            return kept
        return {name: value for name, value in kept.items() if name.startswith(DATA) and name != "data.inputs"}

    def resolved(self, name: str) -> Any:
        """Return a value with its references `${name}` replaced."""
        value = self.values.get(name)
        if not isinstance(value, str):
            return value
        whole = re.fullmatch(POINTER, value)
        return self.resolved(whole[1]) if whole else re.sub(POINTER, lambda one: str(self.resolved(one[1])), value)

    def data_set(self) -> str:
        """Return a description of the images that a run is scored on."""
        images = {key: self.resolved(f"data.val.{key}") for key in IMAGES}
        batches = self.values.get("trainer.limit_val_batches")
        part = "" if batches is None else f", {batches} of its batches"
        known = images_of(images, self.values.get("segmentation", ""))
        return f"{known}{part}" if known else "data unknown, no configuration in the run folder"


def images_of(data: Mapping[str, Any], task: Any) -> str:
    """Return a description of a data set by its settings; empty without a `_target_`."""
    kind = str(data.get("_target_") or "").rpartition(".")[2]
    if kind == "Shapes":
        number, size, seed = (data.get(key) for key in ("num_scenes", "size", "seed"))
        return f"{number} procedural scenes of {size}x{size} (seed {seed})"
    listed = data.get("annotation_file")
    file = PurePosixPath(str(listed or data.get("image_folder")))  # with index masks, the folder is named by the split
    known = KNOWN.get((kind if listed else str(data.get("classes")), file.stem), f"{file.parent.name} {file.stem}")
    return f"{known}, {task}" if kind else ""


def identity(settings: Any) -> str:
    """Return a text that is equal for equal settings."""
    return json.dumps(settings, sort_keys=True, default=str)


def masked(value: Any, hidden: Mapping[str, Any]) -> Any:
    """Return a text with hidden settings as `*`: `parent_seed0/beta=0.1` is `parent_seed*/beta=*`."""
    if isinstance(value, str):
        for name, setting in hidden.items():
            value = re.sub(rf"({name}[=_-]?){re.escape(str(setting))}(?!\.?\d)", r"\1*", value)
    return value


def labels(all_settings: Mapping[Key, Settings], data_only: bool = False) -> dict[Key, str]:
    """Return a short, unique label for each: the name of the experiment, and how it differs from others of that name.

    Args:
        data_only: compare only the settings that oracle and fixed exits depend on.
    """
    schedules = {identity(settings.values.get("schedule")) for settings in all_settings.values()}
    names = {settings.name for settings in all_settings.values()}
    values = {key: one.of_data() if data_only else one.without_seed(*DIALS) for key, one in all_settings.items()}
    differing: dict[str, dict[str, list[Any]]] = {}
    for name in names:
        same = [key for key, settings in all_settings.items() if settings.name == name]
        given = {one for key in same for one in given_names(all_settings[key].overrides)}
        differing[name] = telling(differences([values[key] for key in same]), given)
    found: dict[Key, str] = {}
    for key, settings in all_settings.items():
        words = described(values[key], differing[settings.name], settings.overrides)
        schedule = settings.values.get("schedule")
        if schedule and len(schedules) > 1 and "schedule" not in differing[settings.name]:
            words.insert(0, f"schedule {short(schedule, [])}")
        label = ", ".join([settings.name, *words] if len(names) > 1 or not words else words)
        twins = sum(other == label or other.startswith(f"{label} (") for other in found.values())
        found[key] = f"{label} ({twins + 1})" if twins else label
    return found


def differences(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of settings that are not the same everywhere, by name."""
    names = dict.fromkeys(name for one in settings for name in one)
    values = {name: [one.get(name) for one in settings] for name in names}
    return {
        name: some
        for name, some in values.items()
        if not name.startswith(UNNAMED) and not name.endswith("_target_") and any(value != some[0] for value in some)
    }


def telling(differing: Mapping[str, list[Any]], given: Collection[str]) -> dict[str, list[Any]]:
    """Return the differing settings without those that follow from the command line's.

    A `variant` has an encoder and its parts: its name says enough.
    """
    told = [values for name, values in differing.items() if name in given]
    runs = [identity(row) for row in zip(*told, strict=True)]

    def follows(values: Sequence[Any]) -> bool:
        return bool(runs) and len(set(runs)) == len({*zip(runs, map(identity, values), strict=True)})

    return {name: values for name, values in differing.items() if name in given or not follows(values)}


def given_names(overrides: Sequence[str]) -> set[str]:
    """Return the names of the settings that overrides set."""
    return {override.lstrip("+").partition("=")[0] for override in overrides}


def described(settings: Mapping[str, Any], differing: Mapping[str, list[Any]], overrides: Sequence[str]) -> list[str]:
    """Return the first `LONGEST` of the differing settings as text, those from the command line before others."""
    given = given_names(overrides)
    names = [name for name in differing if settings.get(name) is not None]
    names = [name for name in names if not str(settings[name]).startswith("${")]  # the target is in the list, too
    names.sort(key=lambda name: name not in given)
    return [f"{name.rpartition('.')[2]} {short(settings[name], differing[name])}" for name in names[:LONGEST]]


def short(value: Any, others: Sequence[Any]) -> str:
    """Return a value as text; of a path, the last parts that other paths do not have."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, str) and "/" in value:
        paths = [set(PurePosixPath(other).parts) for other in others if isinstance(other, str)]
        shared = set.intersection(*paths) if len(paths) > 1 else set()
        parts = [part for part in PurePosixPath(value).parts if part not in shared | COMMON]
        return "/".join(parts[-2:]) or value
    return str(value)
