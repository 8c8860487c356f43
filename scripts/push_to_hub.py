"""Push an export to the Hugging Face hub, after its files have been compared with its manifest.

python -m scripts.push_to_hub FOLDER name/repository                 a private repository, made if it is not there
python -m scripts.push_to_hub FOLDER name/repository --public
python -m scripts.push_to_hub FOLDER ./trial                         a folder instead, to look at what would be pushed

The hub's token is that of `hf auth login`. Weights whose licence forbids redistribution are refused.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from src.exporting.folder import check_files, pushed_files
from src.exporting.manifest import NOT_STATED, read_manifest

FORBIDDEN = "no redistribution"  # in the terms of weights that may not be passed on


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, help="the folder of an export")
    parser.add_argument("repository", help="NAME/REPOSITORY on the hub, or a folder: ./FOLDER, ../FOLDER, /FOLDER")
    parser.add_argument("--public", action="store_true", help="of a repository that is made: everyone may read it")
    args = parser.parse_args(arguments)
    try:
        manifest = read_manifest(args.export)
        check_files(args.export, manifest)
        check_licence(manifest)
        names = pushed_files(args.export, manifest)
        if args.repository.startswith((".", "/", "~")):
            print(copy(args.export, names, Path(args.repository).expanduser()))
        else:
            print(push(args.export, names, args.repository, private=not args.public))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def check_licence(manifest: dict[str, Any]) -> None:
    """Raise ValueError for weights that may not be passed on; say so if nobody stated a licence."""
    licence = manifest["weights"]["licence"]
    if FORBIDDEN in licence:
        raise ValueError(f"the licence of the weights is: {licence}; expected weights that may be passed on")
    if licence == NOT_STATED:
        print("note: the licence of the weights is not stated; src.export licence=TEXT states it", file=sys.stderr)


def copy(export: Path, names: list[str], target: Path) -> Path:
    """Copy files into a new or empty folder. Raises ValueError for one that has files."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target}: is there already; expected a new or empty folder")
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(export / name, target / name)
    return target


def push(export: Path, names: list[str], repository: str, private: bool) -> str:
    """Push files to the hub in one commit. Returns the address. Raises ValueError if the hub refuses."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=export, allow_patterns=names, commit_message="Export of ecoscale"
        )
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"{repository}: {str(error).strip().splitlines()[0]}") from error
    return str(address)


if __name__ == "__main__":
    main()
