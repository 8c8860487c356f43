"""The model card of an export: README.md with the front matter that the Hugging Face hub reads."""

from collections.abc import Mapping
from typing import Any

import yaml

from src.records.markdown import markdown_table

SHOWN = 200  # classes that the card names


def model_card(manifest: Mapping[str, Any]) -> str:
    """The text of the card, from the manifest."""
    parts = (
        front_matter(manifest),
        about(manifest),
        how_to_run(manifest),
        costs(manifest),
        checks(manifest),
        classes(manifest),
        licence(manifest),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(manifest: Mapping[str, Any]) -> str:
    """The fields by which the hub lists a model."""
    fields = {
        "license": "other",
        "license_name": manifest["weights"]["licence"],
        "pipeline_tag": "image-segmentation",
        "library_name": "onnx",
        "tags": ["onnx", "mask2former", "early-exit", f"{manifest['segmentation']}-segmentation"],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def about(manifest: Mapping[str, Any]) -> str:
    """What it is."""
    exits = manifest["exits"]
    files = {
        "split": "`trunk*.onnx` computes what every image needs, `tail_K*.onnx` the rest up to exit K; their weights "
        "are in `weights.bin`, each once.",
        "whole": "`exit_K*.onnx` is the whole network up to exit K, complete in itself.",
    }[manifest["form"]]
    gate = ""
    if manifest["gate"]:
        gate = " A gate in the trunk scores the exits for each image, and the cheapest good enough is taken."
    sizes = [graph["size"] for graph in manifest["graphs"]]
    size = "any size, in multiples of 32 pixels" if None in sizes else ", ".join("{}x{}".format(*one) for one in sizes)
    return (
        f"# {manifest['name']}\n\n"
        f"A Mask2Former-style network for {manifest['segmentation']} segmentation, exported to ONNX. Images may leave "
        f"its encoder after {', '.join(map(str, exits))} layers: fewer layers cost less.{gate}\n\n"
        f"{files} Images are {size}. Precision: {manifest['precision']}."
    )


def how_to_run(manifest: Mapping[str, Any]) -> str:
    """The commands that run it."""
    return (
        "## Run it\n\n```\npip install numpy pillow onnxruntime\npython runtime.py photo.jpg\n"
        f"python runtime.py photo.jpg --exit {manifest['exits'][0]}\n```\n\n"
        "`runtime.py` needs neither torch nor the code that the network was trained with."
    )


def costs(manifest: Mapping[str, Any]) -> str:
    """A row for each exit, a column for each size."""
    sizes = manifest["costs"]
    header = ["exit", *("{}x{}".format(*one["size"]) for one in sizes)]
    rows = [[str(exit_), *(f"{one['gflops'][str(exit_)]:.4g}" for one in sizes)] for exit_ in manifest["exits"]]
    return "## Cost in GMAC (1e9 multiply-adds)\n\n" + numbers(header, rows)


def checks(manifest: Mapping[str, Any]) -> str:
    """How far the files are from the network in torch."""
    checked = manifest["checked"]
    real = any(one.get("changed") is not None for one in checked)  # on real images, as int8 is
    header, rows = ["exit", "images", "class logits", "mask logits", *["means", "pixels of other class"] * real], []
    for one in checked:
        cells = [str(one["exit"]), "{} x {}x{}".format(one["batch"], *one["size"])]
        cells += [f"{one['class_logits']:.1e}", f"{one['mask_logits']:.1e}"]
        if real:
            cells += [f"{one['mean_class_logits']:.1e}, {one['mean_mask_logits']:.1e}", f"{one['changed']:.2%}"]
        rows.append(cells)
    versions, shown = manifest["versions"], "on the images of the calibration" if real else "on noise"
    return (
        f"## Largest differences from torch\n\nonnxruntime {versions['onnxruntime']} against torch "
        f"{versions['torch']}, {shown}.\n\n{numbers(header, rows)}"
    )


def classes(manifest: Mapping[str, Any]) -> str:
    """The names of the classes; the first ones, if there are many."""
    names = [one["name"] for one in manifest["classes"]]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"## Classes\n\n{len(names)}: {', '.join(names[:SHOWN])}{more}."


def licence(manifest: Mapping[str, Any]) -> str:
    """What may be done with the weights, and which ones they are."""
    weights = manifest["weights"]
    return (
        f"## Weights\n\nLicence of the weights: {weights['licence']}. Source: `{weights['source']}`, fingerprint "
        f"`{weights['fingerprint'][:12]}`."
    )


def numbers(header: list[str], rows: list[list[str]]) -> str:
    """A table whose columns are numbers."""
    return markdown_table(header, rows, ["---:"] * len(header))
