"""What other libraries call the arrays of the networks of this one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Tokens: TypeAlias = tuple[str, ...]
Renames: TypeAlias = Sequence[tuple[str, str]]
"""Regular expressions over dotted names, each with what takes the place of its match."""

KINDS: Mapping[str, str] = {
    "weight": "weight",
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "w": "weight",
    "bias": "bias",
    "b": "bias",
    "offset": "bias",
    "running_mean": "mean",
    "mean": "mean",
    "running_var": "var",
    "var": "var",
}
"""What the last part of a name says of an array, where libraries differ in the word."""
UNUSED = ("num_batches_tracked",)
"""Leaves that no network here needs: they are kept in a file, and told."""
BOOKKEEPING = (
    *("opt_state", "optimizer", "optimizer_states", "optimizer_state_dict", "optim"),
    *("lr_scheduler", "lr_schedulers", "scheduler", "amp", "scaler", "amp_scaler"),
    *("step", "epoch", "global_step", "rng", "rngs", "key", "loops", "callbacks"),
)
"""First parts of what training programs store beside the weights."""
_COLLECTIONS = ("params", "state", "batch_stats")
_AVERAGED = re.compile(r"(^|[_.])(ema|swa|average[d]?|shadow)([_.]|$)")

_RESNET: Renames = (
    (r"^conv1\.", "stem.conv."),
    (r"^bn1\.", "stem.norm."),
    (r"^layer(\d)\.0\.", r"stage\1_block1."),
    (r"^layer(\d)\.1\.", r"stage\1_block2."),
    (r"\.conv1\.", ".first.conv."),
    (r"\.bn1\.", ".first.norm."),
    (r"\.conv2\.", ".second.conv."),
    (r"\.bn2\.", ".second.norm."),
    (r"\.(?:downsample|shortcut)\.0\.", ".shortcut.conv."),
    (r"\.(?:downsample|shortcut)\.1\.", ".shortcut.norm."),
    (r"^(?:fc|linear)\.", "classifier."),
)
_VGG: Renames = (
    (r"^classifier\.0\.", "fc1."),
    (r"^classifier\.3\.", "fc2."),
    (r"^classifier\.6\.", "classifier."),
)
_VIT: Renames = (
    (r"^(cls_token|pos_embed)$", r"patch_embed.\1"),
    (r"^patch_embed\.proj\.", "patch_embed."),
    (r"^head\.", "classifier."),
)
_CONVNEXT: Renames = (
    # torchvision
    (r"^features\.0\.0\.", "stem.conv."),
    (r"^features\.0\.1\.", "stem.norm."),
    *((rf"^features\.{2 * s}\.0\.", f"stages.{s}.downsample.norm.") for s in (1, 2, 3)),
    *((rf"^features\.{2 * s}\.1\.", f"stages.{s}.downsample.conv.") for s in (1, 2, 3)),
    *((rf"^features\.{2 * s + 1}\.(\d+)\.", rf"stages.{s}.blocks.\1.") for s in range(4)),
    (r"\.block\.0\.", ".conv_dw."),
    (r"\.block\.2\.", ".norm."),
    (r"\.block\.3\.", ".fc1."),
    (r"\.block\.5\.", ".fc2."),
    (r"\.layer_scale$", ".layer_scale.scale"),
    (r"^classifier\.0\.", "head.norm."),
    (r"^classifier\.2\.", "classifier."),
    # timm
    (r"^stem\.0\.", "stem.conv."),
    (r"^stem\.1\.", "stem.norm."),
    (r"\.downsample\.0\.", ".downsample.norm."),
    (r"\.downsample\.1\.", ".downsample.conv."),
    (r"\.mlp\.(fc[12])\.", r".\1."),
    (r"\.gamma$", ".layer_scale.scale"),
    (r"^head\.fc\.", "classifier."),
)
RENAMES: Mapping[str, Renames] = {
    "resnet18": _RESNET,
    "vgg11": _VGG,
    "vgg16": _VGG,
    "vit_tiny": _VIT,
    "convnext_tiny": _CONVNEXT,
}
"""By network of this library: what torchvision and timm call its arrays."""


def split_name(name: str) -> Tokens:
    """Returns the parts of a name; `blocks.0`, `blocks/0` and `blocks_0` are the same."""
    parts = re.split(r"[/.]", name)
    spread = (re.sub(r"_(\d+)$", r"/\1", part).split("/") for part in parts)
    return tuple(token for part in spread for token in part)


def rename(name: str, renames: Renames) -> str:
    """Returns a dotted name after all replacements, in their order."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def without_collections(name: str) -> str:
    """Returns a name without `params/`, `state/`, `batch_stats/` at its beginning."""
    parts = re.split(r"([/.])", name)
    while len(parts) > 1 and parts[0] in _COLLECTIONS:
        parts = parts[2:]
    return "".join(parts)


def is_averaged(prefix: Sequence[str]) -> bool:
    """Returns whether a part of a file is called as an average over a training, as EMA."""
    return any(_AVERAGED.search(part.lower()) for part in prefix)
