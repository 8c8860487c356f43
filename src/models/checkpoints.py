"""Weights from elsewhere: our own checkpoints, and Mask2Former as `transformers` publishes it.

Every key is accounted for, on both sides, or the load is refused, naming the first that disagree.
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn

from src.tensor_files import load

State = dict[str, Tensor]
SHOWN = 20  # keys that a refusal names

# What `transformers` has and we do not need: loss weights, Swin's unused last norm, indices that follow from shapes.
TRANSFORMERS_UNUSED = r"criterion\.|.*encoder\.swin\.layernorm\.|.*relative_position_index$"

# Parts of one of our matrices get a number: "in_proj#0" is its first third.
TRANSFORMERS_KEYS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"model\.pixel_level_module\.encoder\.", "backbone.body."),
    (r"model\.pixel_level_module\.decoder\.", "pixel_decoder."),
    (r"model\.transformer_module\.decoder\.", "decoder."),
    (r"model\.transformer_module\.", "decoder."),
    (r"^class_predictor", "decoder.class_embed"),
    # Swin
    (r"body\.hidden_states_norms\.stage(\d)", lambda m: f"norms.{int(m[1]) - 1}"),
    (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"embeddings\.norm", "patch_embed.norm"),
    (r"body\.encoder\.layers\.(\d)\.downsample", lambda m: f"body.layers_{int(m[1]) + 1}.downsample"),
    (r"body\.encoder\.layers\.(\d)", r"body.layers_\1"),
    (r"attention\.self\.query", "attn.qkv#0"),
    (r"attention\.self\.key", "attn.qkv#1"),
    (r"attention\.self\.value", "attn.qkv#2"),
    (r"attention\.self\.relative", "attn.relative"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    # ResNet
    (r"body\.embedder\.embedder\.convolution", "body.conv1"),
    (r"body\.embedder\.embedder\.normalization", "body.bn1"),
    (r"body\.encoder\.stages\.(\d)\.layers", lambda m: f"body.layer{int(m[1]) + 1}"),
    (r"\.shortcut\.convolution", ".downsample.0"),
    (r"\.shortcut\.normalization", ".downsample.1"),
    (r"\.layer\.(\d)\.convolution", lambda m: f".conv{int(m[1]) + 1}"),
    (r"\.layer\.(\d)\.normalization", lambda m: f".bn{int(m[1]) + 1}"),
    # pixel decoder
    (r"input_projections", "input_proj"),
    (r"adapter_1", "lateral"),
    (r"layer_1\.", "pixel_embedding."),
    (r"mask_projection", "mask_features"),
    (r"(pixel_decoder\..*)self_attn_layer_norm", r"\1norm1"),
    (r"(pixel_decoder\..*)final_layer_norm", r"\1norm2"),
    # transformer decoder
    (r"queries_embedder", "query_embed"),
    (r"queries_features", "query_feat"),
    (r"self_attn\.q_proj", "self_attn.in_proj#0"),
    (r"self_attn\.k_proj", "self_attn.in_proj#1"),
    (r"self_attn\.v_proj", "self_attn.in_proj#2"),
    (r"in_proj_(weight|bias)", r"in_proj.\1"),
    (r"cross_attn_layer_norm", "norm1"),
    (r"self_attn_layer_norm", "norm2"),
    (r"final_layer_norm", "norm3"),
    (r"decoder\.layernorm", "decoder.norm"),
    (r"mask_predictor\.mask_embedder\.(\d)\.0", lambda m: f"mask_embed.{2 * int(m[1])}"),
    (r"((?:encoder|decoder)\.layers\.\d+)\.fc", r"\1.linear"),
]


def load_weights(model: nn.Module, source: str) -> None:
    """Fill a model from a file, a folder or a hub name.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no readable weights, or keys that are missing, left over, or of another shape.
    """
    state = read_weights(source)
    expected = model.state_dict()
    # counters of batch norm that no forward pass reads; a frozen norm does not have them
    state = {key: value for key, value in state.items() if key in expected or not key.endswith("num_batches_tracked")}
    check_state(state, expected, source)
    model.load_state_dict(state)


def check_state(state: State, expected: State, source: str) -> None:
    """Refuse weights of another architecture. Raises ValueError with the first keys that disagree."""
    problems = [f"missing: {key} {tuple(expected[key].shape)}" for key in expected if key not in state]
    problems += [f"left over: {key} {tuple(state[key].shape)}" for key in state if key not in expected]
    problems += [
        f"shape: {key} is {tuple(state[key].shape)}, the model has {tuple(expected[key].shape)}"
        for key in expected.keys() & state.keys()
        if state[key].shape != expected[key].shape
    ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(
            f"{source} is of another architecture than the model asked for ({len(problems)} of {len(expected)} keys "
            "disagree; compare backbone, schedule, dim, num_queries and the number of classes): "
            f"{'; '.join(sorted(problems)[:SHOWN])}{more}"
        )


def read_weights(source: str) -> State:
    """The tensors of a checkpoint under our names."""
    state = read_tensors(locate(source))
    if any(key.startswith("model.pixel_level_module.") for key in state):
        return from_transformers(state)
    return {key.removeprefix("model."): value for key, value in state.items()}


def locate(source: str) -> list[Path]:
    """The weight files a path or hub name stands for."""
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.exists():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or path.suffix in {".ckpt", ".safetensors", ".bin", ".pth"}:
            raise FileNotFoundError(f"weights {source}: no such file or folder, looked in {path.absolute().parent}")
        try:
            path = Path(snapshot_download(source, allow_patterns=["*.safetensors", "*.bin"]))
        except Exception as error:
            raise FileNotFoundError(
                f"weights {source}: no such folder here, and as a hub name it cannot be fetched "
                f"({str(error).splitlines()[0]}); without a network, give a folder or a file"
            ) from error
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
    if not files:
        raise FileNotFoundError(f"weights {source}: the folder holds no *.safetensors and no *.bin")
    return files


def read_tensors(files: list[Path], setting: str = "weights") -> State:
    """All tensors of some safetensors or torch files, named by a setting; no file may run code."""
    state: State = {}
    for file in files:
        content = load(file, setting)
        if isinstance(content, dict):
            content = content.get("state_dict", content.get("model", content))  # Lightning's way, and timm's
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise ValueError(f"{setting}={file}: holds {type(content).__name__}, expected tensors by name")
        state |= content
    return state


def from_transformers(state: State) -> State:
    """Keys of `transformers`' Mask2Former (Swin or ResNet) to ours; queries, keys and values joined."""
    parts: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        if re.match(TRANSFORMERS_UNUSED, key):
            continue
        for pattern, replacement in TRANSFORMERS_KEYS:
            key = re.sub(pattern, replacement, key)
        key, number = re.subn(r"#(\d)", "", key)[0], re.search(r"#(\d)", key)
        parts.setdefault(key, {})[int(number[1]) if number else 0] = value
    return {
        key: torch.cat([part[i] for i in sorted(part)]) if len(part) > 1 else part[0] for key, part in parts.items()
    }
