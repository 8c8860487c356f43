"""Write scenes of shapes to disk in COCO's layout, to try its readers on procedural data.

python -m scripts.write_shapes data/shapes --num-train 2000 --num-val 200
"""

import argparse
import sys
from pathlib import Path

from src.data.export import export_coco
from src.data.shapes import Shapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder to write to")
    parser.add_argument("--num-train", type=int, default=2000, help="training scenes (default: %(default)s)")
    parser.add_argument("--num-val", type=int, default=200, help="validation scenes (default: %(default)s)")
    parser.add_argument("--size", type=int, default=96, help="side of a scene in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="training scenes; validation takes the next (default: 0)")
    args = parser.parse_args()
    for name, least in (("num_train", 1), ("num_val", 1), ("size", 8), ("seed", 0)):
        if getattr(args, name) < least:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)}: expected a whole number from {least}")
    try:
        for seed, (split, count) in enumerate((("train", args.num_train), ("val", args.num_val)), args.seed):
            export_coco(Shapes(count, args.size, seed), args.root, split)
            print(f"{count} {split} scenes in {args.root}")
    except OSError as error:  # not writable, disk full
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
