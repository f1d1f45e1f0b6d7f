"""Decodes one image to uint8 without changing what it shows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from unlearnkit.reading import AS_FOUND, Reading

_CHANNELS = {"L": 1, "RGB": 3}


_MODES = {"grey": "L", "rgb": "RGB"}


def decode_image(file: Path | io.BytesIO, *, where: str, reading: Reading = AS_FOUND) -> np.ndarray:
    """Returns the pixels of one image, [height, width, channels] uint8, grey (1) or RGB (3).

    Args:
      file: an encoded image in any format that Pillow reads.
      where: what the message calls the image.
      reading: the size and the mode that it is brought to.

    Raises:
      ValueError: not an image, a truncated one, or one that has transparency or more than 8 bits
        where no mode is asked for.
    """
    try:
        with Image.open(file) as encoded:
            image = _without_palette(encoded)
            if reading.mode is None and image.mode not in _CHANNELS:
                mode, pixels = image.mode, np.empty(0)
            else:
                pixels = fit_image(image, reading)
                mode = image.mode if reading.mode is None else _MODES[reading.mode]
    # Pillow raises SyntaxError for broken PNG chunks.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"cannot decode {where} as an image ({error}); replace or remove it"
        ) from error
    if mode not in _CHANNELS:
        raise ValueError(
            f"{where} must be a grey or RGB image of 8 bits, got Pillow's mode {mode!r}; "
            "convert it, which decides what becomes of transparency or depth: mode='rgb' or "
            "mode='grey' (--mode) drops both"
        )
    return pixels


def is_image(path: Path) -> bool:
    """Returns whether the ending of a file is that of a format that Pillow reads."""
    return path.suffix.lower() in Image.registered_extensions()


def fit_image(image: Image.Image, reading: Reading) -> np.ndarray:
    """Returns the pixels of an image in the mode and the size asked for, [h, w, c] uint8.

    Args:
      image: grey or RGB of 8 bits, unless a mode is asked for.
      reading: says mode and size; sizes are changed bilinearly, with antialiasing.
    """
    if reading.mode is not None:
        image = _without_depth(image).convert(_MODES[reading.mode])
    if reading.resize is not None:
        image = image.resize((reading.resize, reading.resize), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _without_depth(image: Image.Image) -> Image.Image:
    """Returns an image of 16 bits with the upper 8 of them; Pillow would cut the values off."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def _without_palette(image: Image.Image) -> Image.Image:
    """Returns the image with the bits per pixel of one channel, where that loses nothing."""
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "P" and "transparency" not in image.info:
        return image.convert("RGB")
    return image
