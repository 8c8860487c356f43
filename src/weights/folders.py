"""Which files of a folder, or under a hub name, are the weights."""

import re
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import snapshot_download

ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".pkl", ".ckpt")  # of files, which no hub name has
SHARD = re.compile(r"-(\d+)-of-(\d+)$")
# What transformers' Trainer and accelerate keep beside the weights to train on.
NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|sampler|rng_state|random_states)(_\d+)*$")
# Which of several to take: the first of these that any of them is called.
CALLED = (
    *(r"model\.safetensors", r"pytorch_model\.bin", r"model.*\.safetensors", r"pytorch_model.*\.bin"),
    *(r".*\.safetensors", r".*\.bin", r".*"),
)


def locate(source: str) -> list[Path]:
    """The weight files a path or hub name stands for.

    Raises FileNotFoundError where there are none, ValueError where it takes a choice between several.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    return weights_in(path if path.exists() else fetch(source), source)


def fetch(source: str) -> Path:
    """The folder of a hub name. Raises FileNotFoundError for what is none or cannot be fetched."""
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
    """The weight files in a folder: one, or all parts of one. Raises as `locate` does."""
    there = sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != ".")
    wholes = group(file for file in there if file.suffix in ENDINGS and not NO_WEIGHTS.match(file.stem))
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


def group(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by the name that they have as a whole: parts of one are called NAME-00001-of-00002."""
    wholes: dict[str, list[Path]] = {}
    for file in files:
        wholes.setdefault(SHARD.sub("", file.stem) + file.suffix, []).append(file)
    return wholes


def complete(parts: list[Path], source: str) -> list[Path]:
    """The parts, if all are there. Raises FileNotFoundError naming the number of those that are not."""
    numbers = [SHARD.search(file.stem) for file in parts]
    expected = max(int(number[2]) if number else 1 for number in numbers)
    if len(parts) < expected:
        raise FileNotFoundError(f"weights {source}: {parts[0].name} and so on are {len(parts)} of {expected} parts")
    return parts
