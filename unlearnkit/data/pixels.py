"""Arrays of a file as inputs: pixels with their white, numbers of a table, or token ids."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unlearnkit.data.images import fit_image
from unlearnkit.data.source import Pixels, measure
from unlearnkit.reading import Layout, Reading
from unlearnkit.validation import check_finite

_CHANNELS = (1, 3)
_BYTE = 255


def check_stored(shape: tuple[int, ...], dtype: np.dtype, *, name: str) -> None:
    """Raises an error if an array of a file holds nothing, or Python objects.

    Args:
      shape: of the array.
      dtype: of the array.
      name: what messages call it.

    Raises:
      TypeError: Python objects.
      ValueError: no examples.
    """
    if dtype.hasobject:
        raise TypeError(
            f"{name} holds Python objects, which are never unpickled; "
            "save it as an array of numbers, all examples of one shape"
        )
    if not shape or 0 in shape:
        raise ValueError(f"{name} must hold at least one example, got the shape {shape}")


def input_shape(
    shape: tuple[int, ...], dtype: np.dtype, reading: Reading, *, name: str
) -> tuple[int, ...]:
    """Returns the shape of one example as `as_pixels` gives it, without reading the array.

    Args:
      shape: of the array in the file.
      dtype: of the array in the file.
      reading: what is said of it.
      name: what messages call the array.

    Raises:
      TypeError: Python objects, or numbers that are neither real nor whole.
      ValueError: no examples, or a shape that is none of [n, h, w, c], [n, h, w] and [n, d].
    """
    check_stored(shape, dtype, name=name)
    if dtype.kind not in "biuf":
        raise TypeError(f"{name} must be numbers, got {dtype}; save pixels as uint8")
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"{name} must be [n, h, w, c], [n, h, w] or [n, d], got the shape {shape}")
    if len(shape) == 2:
        return shape[1:]
    if reading.layout == "features":
        return (int(np.prod(shape[1:])),)
    found = (*shape[1:], 1) if len(shape) == 3 else shape[1:]
    if _channels_first(shape, reading.layout):
        found = (*found[1:], found[0])
    if reading.resize is not None:
        found = (reading.resize, reading.resize, found[2])
    if reading.mode is not None:
        found = (*found[:2], 1 if reading.mode == "grey" else 3)
    return found


def as_pixels(x: np.ndarray, y: np.ndarray, reading: Reading, *, name: str) -> Pixels:
    """Returns one split of arrays.

    Pixels are uint8 or whole numbers in 0 … 255, truth values, or floats in [0, 1]; what is
    anything else needs `reading.white`, or is no pixel. Whole numbers [n, d] are token ids where
    `load` is told so.

    Args:
      x: [n, h, w, c], [n, c, h, w], [n, h, w] or [n, d].
      y: [n] classes.
      reading: what is said of them.
      name: what messages call the array.

    Raises:
      TypeError: see `input_shape`.
      ValueError: see `input_shape`; NaN; numbers that can be read in several ways, or in none.
    """
    input_shape(x.shape, x.dtype, reading, name=name)
    if reading.layout == "features":
        return _features(x.reshape(len(x), -1), y, name)
    if x.ndim > 2:
        x = np.moveaxis(x, 1, -1) if _channels_first(x.shape, reading.layout) else x
        x = x[..., None] if x.ndim == 3 else x
    elif x.dtype.kind in "iu" and x.dtype != np.uint8 and reading.white is None:
        return Pixels(x, y.astype(np.int32), 1, (), ())
    x, white = _whiten(x, reading.white, name)
    if white is None:
        return _features(x, y, name)
    return measure(_fit(x, white, reading, name), y, white=white)


def _channels_first(shape: tuple[int, ...], layout: Layout | None) -> bool:
    if len(shape) != 4:
        return False
    if layout is None:
        return shape[1] in _CHANNELS and shape[3] not in _CHANNELS
    return layout == "channels_first"


def _whiten(x: np.ndarray, white: float | None, name: str) -> tuple[np.ndarray, float | None]:
    """Returns pixels as bytes or float32, and the value of white; None of no pixels."""
    if x.dtype == np.bool_:
        return x.astype(np.uint8), 1
    if x.dtype.kind == "f":
        check_finite(x, name=name)
    least, most = x.min(), x.max()
    if white is not None:
        if least < 0 or most > white:
            raise ValueError(
                f"pixels of {name} must lie in 0 … {white:g}, its white, got {_first(x, white)}"
            )
        whole = x.dtype.kind in "iu" and white <= _BYTE
        return x.astype(np.uint8 if whole else np.float32), white
    if x.dtype.kind == "f":
        if least >= 0 and most <= 1:
            return x.astype(np.float32), 1
        if x.ndim == 2:
            return x, None
        raise ValueError(
            f"x of {name} must be uint8 or lie in [0, 1], got {_first(x, 1)}; "
            + (
                "say what is white, as white=255"
                if least >= 0
                else "undo the normalisation (x * std + mean), or say layout='features'"
            )
        )
    if least < 0 or most > _BYTE:
        raise ValueError(
            f"whole numbers of {name} must lie in 0 … 255 to be pixels, got {_first(x, _BYTE)}; "
            "say what is white, as white=65535"
        )
    if least < most <= 1:
        raise ValueError(
            f"{name} holds only 0 and 1, of type {x.dtype}: black and white, say white=1; or "
            "nearly black pixels of 8 bits, say white=255"
            + ("; or features, say layout='features'" if x.ndim == 2 else "")
        )
    return x.astype(np.uint8), _BYTE


def _first(x: np.ndarray, white: float) -> str:
    """Returns the first number outside of 0 … white, and where it is."""
    place = tuple(int(i) for i in np.argwhere((x < 0) | (x > white))[0])
    return f"{x[place].item()} at index {place}"


def _features(x: np.ndarray, y: np.ndarray, name: str) -> Pixels:
    """Returns a table of numbers."""
    x = x.astype(np.float32)
    check_finite(x, name=name)
    return measure(x, y, white=1)._replace(features=True)


def _fit(x: np.ndarray, white: float, reading: Reading, name: str) -> np.ndarray:
    """Returns images of the size and the mode that are asked for."""
    if x.ndim == 2 or (reading.resize is None and reading.mode is None):
        return x
    if x.dtype != np.uint8 or white != _BYTE or x.shape[-1] not in _CHANNELS:
        raise ValueError(
            f"resize and mode are for grey and RGB images of 8 bits; {name} has {x.shape[-1]} "
            f"channels of {x.dtype} and white {white:g}"
        )
    images = x[..., 0] if x.shape[-1] == 1 else x
    return np.stack([fit_image(Image.fromarray(image), reading) for image in images])
