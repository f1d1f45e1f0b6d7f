"""The vision transformer."""

from __future__ import annotations

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from unlearnkit.base import Model
from unlearnkit.models.adapters import from_linen
from unlearnkit.models.layers import check_image_shape

_small = nn.initializers.truncated_normal(0.02)


def layer_norm(name: str) -> nn.LayerNorm:
    """Returns a LayerNorm over the last axis as timm has it: epsilon 1e-6, two-pass variance."""
    return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, name=name)


def gelu(x: Array) -> Array:
    """Returns x times the normal distribution function at x, which is what PyTorch computes."""
    return nn.gelu(x, approximate=False)


class _PatchEmbed(nn.Module):
    """Patches through one linear map, a class token before them, positions added to all."""

    width: int
    patch: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n t d"]:
        n, height, width, channels = x.shape
        p = self.patch
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (p, p, channels, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        rows, columns = height // p, width // p
        patches = x.reshape(n, rows, p, columns, p, channels).transpose(0, 1, 3, 2, 4, 5)
        tokens = patches.reshape(n, rows * columns, -1) @ kernel.reshape(-1, self.width) + bias
        first = self.param("cls_token", nn.initializers.normal(1e-6), (1, 1, self.width))
        tokens = jax.numpy.concatenate([first.repeat(n, 0), tokens], axis=1)
        positions = (1, rows * columns + 1, self.width)
        found: Array = tokens + self.param("pos_embed", _small, positions)
        return found


class _Attention(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        n, t, width = x.shape
        qkv = nn.Dense(3 * width, kernel_init=_small, name="qkv")(x)
        q, k, v = qkv.reshape(n, t, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        weights = jax.nn.softmax(q @ k.swapaxes(2, 3) * q.shape[-1] ** -0.5)
        mixed = (weights @ v).transpose(0, 2, 1, 3).reshape(n, t, width)
        return nn.Dense(width, kernel_init=_small, name="proj")(mixed)


class _Mlp(nn.Module):
    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        hidden = gelu(nn.Dense(4 * x.shape[-1], kernel_init=_small, name="fc1")(x))
        return nn.Dense(x.shape[-1], kernel_init=_small, name="fc2")(hidden)


class _Block(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        x = x + _Attention(self.heads, name="attn")(layer_norm("norm1")(x))
        return x + _Mlp(name="mlp")(layer_norm("norm2")(x))


class VisionTransformer(nn.Module):
    """Patches and a class token through blocks of attention and a hidden layer."""

    n_classes: int
    width: int
    depth: int
    heads: int
    patch: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        tokens = _PatchEmbed(self.width, self.patch, name="patch_embed")(x)
        for i in range(self.depth):
            tokens = _Block(self.heads, name=f"blocks_{i}")(tokens)
        return nn.Dense(self.n_classes, name="classifier")(layer_norm("norm")(tokens)[:, 0])


def vit_tiny(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    width: int = 192,
    depth: int = 12,
    heads: int = 3,
    patch: int | None = None,
) -> Model:
    """Returns ViT-tiny: 12 blocks of width 192 with three heads, as timm's `vit_tiny_patch16_224`.

    With images of 224x224x3 and 1000 classes it has 5,717,416 parameters.

    Args:
      input_shape: (height, width, channels); the sides must be multiples of `patch`.
      n_classes: the number of logits.
      width: of a token.
      depth: blocks.
      heads: of the attention; a divisor of `width`.
      patch: side of a patch, in pixels; None for 16, or 4 where a side is shorter than 64.

    Raises:
      ValueError: the input is no image or no multiple of the patches, or the width none of the
        heads.

    Source: Dosovitskiy et al. 2020; the size is Touvron et al. 2020's, DeiT-Ti.

    Example:
      models.create("vit_tiny", input_shape=(32, 32, 3), n_classes=10)
    """
    check_image_shape("vit_tiny", input_shape, smallest=1)
    side = patch or (16 if min(input_shape[:2]) >= 64 else 4)
    if side < 1 or any(length % side for length in input_shape[:2]):
        raise ValueError(
            f"vit_tiny cuts images into patches of {side}x{side} pixels, got "
            f"{input_shape[0]}x{input_shape[1]}; resize them, or set patch"
        )
    if min(width, depth, heads) < 1 or width % heads:
        raise ValueError(
            "width, depth and heads must be >= 1, and heads divide the width, got "
            f"width={width}, depth={depth}, heads={heads}"
        )
    network = VisionTransformer(n_classes, width, depth, heads, side)
    return from_linen(network, input_shape=input_shape)
