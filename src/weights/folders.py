"""Finds the weight files of a folder or hub name."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download

ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".pkl", ".ckpt")  # of files; no hub name ends so
SHARD = re.compile(r"-(\d+)-of-(\d+)$")
# Files that transformers' Trainer and accelerate keep beside the weights, to resume training.
NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|sampler|rng_state|random_states)(_\d+)*$")
# Which of several files to take: the first pattern that any name matches decides.
CALLED = (
    *(r"model\.safetensors", r"pytorch_model\.bin", r"model.*\.safetensors", r"pytorch_model.*\.bin"),
    *(r".*\.safetensors", r".*\.bin", r".*"),
)


def locate(source: str) -> list[Path]:
    """The weight file of a path or hub name, or all parts of it.

    Raises FileNotFoundError if there is none or a part is missing, ValueError if several files could be meant.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    return weights_in(path if path.exists() else fetch(source), source)


def fetch(source: str) -> Path:
    """The local folder of a hub name. Raises FileNotFoundError if it is not one or cannot be fetched."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.endswith(ENDINGS):
        raise FileNotFoundError(f"weights {source}: no such file or folder, looked in {Path(source).absolute().parent}")
    try:
        return Path(snapshot_download(source, allow_patterns=["*.safetensors", "*.bin"]))
    except Exception as error:
        raise FileNotFoundError(
            f"weights {source}: no such folder here, and as a hub name it cannot be fetched "
            f"({str(error).splitlines()[0]}); without a network, give a folder or a file"
        ) from error


def weights_in(folder: Path, source: str) -> list[Path]:
    """The weight file in a folder, or all parts of it. Raises as `locate` does."""
    there = sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != ".")
    wholes: dict[str, list[Path]] = {}  # the parts of each file, which are called NAME-00001-of-00002
    for file in there:
        if file.suffix in ENDINGS and not NO_WEIGHTS.match(file.stem):
            wholes.setdefault(SHARD.sub("", file.stem) + file.suffix, []).append(file)
    if not wholes:
        others = f", only {', '.join(file.name for file in there)}" if there else ""
        raise FileNotFoundError(f"weights {source}: the folder holds no weights (*{', *'.join(ENDINGS)}){others}")
    for pattern in CALLED:
        chosen = [name for name in wholes if re.fullmatch(pattern, name)]
        if len(chosen) == 1:
            return complete(wholes[chosen[0]], source)
        if chosen:
            break
    raise ValueError(f"weights {source}: the folder holds {', '.join(chosen)}; give the file that is meant")


def complete(parts: list[Path], source: str) -> list[Path]:
    """The parts of a file. Raises FileNotFoundError if some are missing."""
    numbers = [SHARD.search(file.stem) for file in parts]
    expected = max(int(number[2]) if number else 1 for number in numbers)
    if len(parts) < expected:
        raise FileNotFoundError(f"weights {source}: {parts[0].name} and so on are {len(parts)} of {expected} parts")
    return parts
