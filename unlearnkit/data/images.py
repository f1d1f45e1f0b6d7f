"""Decodes one image to uint8 without changing what it shows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

_CHANNELS = {"L": 1, "RGB": 3}


def decode_image(file: Path | io.BytesIO, *, where: str) -> np.ndarray:
    """Returns the pixels of one image, [height, width, channels] uint8, grey (1) or RGB (3).

    Args:
      file: an encoded image in any format that Pillow reads.
      where: what the message calls the image.

    Raises:
      ValueError: not an image, a truncated one, or one that has transparency or more than 8 bits.
    """
    try:
        with Image.open(file) as encoded:
            image = _without_palette(encoded)
            mode, pixels = image.mode, np.asarray(image)
    # Pillow raises SyntaxError for broken PNG chunks.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"cannot decode {where} as an image ({error}); replace or remove it"
        ) from error
    if mode not in _CHANNELS:
        raise ValueError(
            f"{where} must be a grey or RGB image of 8 bits, got Pillow's mode {mode!r}; "
            "convert it, which decides what becomes of transparency or depth"
        )
    return pixels.reshape(*pixels.shape[:2], _CHANNELS[mode])


def _without_palette(image: Image.Image) -> Image.Image:
    """Returns the image with the bits per pixel of one channel, where that loses nothing."""
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "P" and "transparency" not in image.info:
        return image.convert("RGB")
    return image
