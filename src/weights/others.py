"""Models that are none of ours, told by the names of their weights."""

import re
from collections.abc import Iterable

# What names of other models match, and what these models are.
OTHERS = (
    (r"(roi_heads|rpn)\.|.*proposal_generator\.", "a box detector (R-CNN)"),
    (r".*(bbox_head|rpn_head|panoptic_head|mask_head)\.", "a model of mmdetection"),
    (
        r".*bbox_embed\.",
        "a detector of the DETR family, in a layout that is not read: DETR and Deformable DETR of transformers are",
    ),
    (r"sem_seg_head\.predictor\.transformer\.|model\.pixel_level_module\.decoder\.fpn", "MaskFormer"),
    (r".*(task_mlp|text_encoder|text_projector)\.", "OneFormer or another model with text"),
    (r"(image_encoder|mask_decoder)\.", "SAM"),
    (
        r"(model\.)?(head|fc|classifier)\.",
        "an image classifier; model.backbone.pretrained=FILE takes it as a backbone",
    ),
    (
        r"(backbone\.)?(stem|res\d|conv1|layer1|patch_embed|layers)[._\d]",
        "a backbone alone; model.backbone.pretrained=FILE takes it",
    ),
)


def other(names: Iterable[str]) -> str:
    """What kind of model weights other than ours belong to: a guess, for an error message."""
    names = list(names)
    parts = [name.split(".") for name in names]
    ends = zip(min(parts), max(parts), strict=False)
    shared = next((depth for depth, (one, another) in enumerate(ends) if one != another), 0)  # of a wrapper
    bare = [".".join(part[shared:]) for part in parts]
    kinds = (kind for pattern, kind in OTHERS if any(re.match(pattern, name) for name in (*names, *bare)))
    return f"looks like {next(kinds, 'another model')} ({len(names)} tensors: {', '.join(names[:5])} ...)"
