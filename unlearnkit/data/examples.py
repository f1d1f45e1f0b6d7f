"""Examples from an iterable: Hugging Face `datasets`, `grain`, `tf.data`, or plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from PIL import Image

from unlearnkit.base import Dataset, Normalisation
from unlearnkit.data.images import fit_image
from unlearnkit.data.labels import as_labels, name_classes, to_classes
from unlearnkit.data.normalising import check_normalisation, normalise
from unlearnkit.data.pixels import as_pixels
from unlearnkit.reading import AS_FOUND, Reading


@runtime_checkable
class Indexed(Protocol):
    """Examples by number, as PyTorch's datasets give them; these need not end by themselves."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


Examples: TypeAlias = Iterable[object] | Mapping[str, Iterable[object]] | Indexed
_INPUTS = ("image", "img", "x", "input", "inputs", "features", "pixel_values")
_LABELS = ("label", "labels", "y", "target", "fine_label", "class")


def from_examples(
    examples: Examples,
    *,
    x: str | None = None,
    y: str | None = None,
    classes: Sequence[str] | None = None,
    normalisation: str | Normalisation = "unit",
    reading: Reading = AS_FOUND,
) -> Dataset:
    """Returns a `Dataset` of an iterable's examples, in their order.

    Args:
      examples: each a mapping, or a pair of input and label; not in batches. Inputs are arrays,
        tensors with `numpy()`, or Pillow's images. What has a length and is indexed, as PyTorch's
        datasets, is as good as an iterable; so are one mapping of columns and a pair of
        arrays. What follows input and label in a tuple is passed over.
      x: the key of the inputs in mappings; None takes the only usual one (`image`, `x`, …).
      y: the key of the labels; None takes the only usual one (`label`, `y`, …).
      classes: names of the classes where labels are texts; None takes those that occur. Give the
        training set's to a test set.
      normalisation: `unit`, `symmetric`, `standard` (mean 0 and standard deviation 1 of these very
        examples), or one of your own: a test set takes `train.normalisation`.
      reading: what is said of the inputs, see `Reading`.

    Raises:
      TypeError: an example that is neither a mapping nor a pair; inputs that are no numbers.
      ValueError: no examples; a key that is not there; inputs of different shapes; see `as_pixels`.

    Example:
      train = data.from_examples(datasets.load_dataset("mnist", split="train"))
      test = data.from_examples(tfds_test.as_numpy_iterator(), normalisation=train.normalisation)
    """
    check_normalisation(normalisation)
    inputs, labels = [], []
    for number, example in enumerate(_each(examples, x, y)):
        value, label = _parts(example, x, y, number)
        inputs.append(_as_array(value, reading))
        labels.append(_as_label(label, inputs[-1], number))
        if inputs[-1].shape != inputs[0].shape:
            raise ValueError(
                f"examples must have one shape, got {inputs[-1].shape} in example {number} and "
                f"{inputs[0].shape} in the first; bring images to one by resize= and mode= of "
                "Reading"
            )
    if not inputs:
        raise ValueError("there must be at least one example, and there is none")
    name = "the examples"
    found = as_labels(np.asarray(labels), name=name)
    known = tuple(classes) if classes is not None else name_classes(found, name=name)
    arrays = np.stack(inputs)
    pixels = as_pixels(arrays, to_classes(found, known, name=name), reading, name=name)
    return normalise(pixels, normalisation, train=lambda: pixels, name=name)


def _parts(example: object, x: str | None, y: str | None, number: int) -> tuple[object, object]:
    """Returns input and label of an example."""
    if isinstance(example, Mapping):
        keys = (_key(example, x, _INPUTS, "x"), _key(example, y, _LABELS, "y"))
        return example[keys[0]], example[keys[1]]
    if isinstance(example, tuple | list) and len(example) >= 2:
        return example[0], example[1]
    raise TypeError(
        f"example {number} must be a mapping, or a pair of input and label, got "
        f"{type(example).__name__}"
    )


def _each(examples: Examples, x: str | None, y: str | None) -> Iterable[object]:
    """Returns the examples one by one."""
    if isinstance(examples, Mapping):
        keys = (_key(examples, x, _INPUTS, "x"), _key(examples, y, _LABELS, "y"))
        return zip(*(examples[key] for key in keys), strict=True)
    if isinstance(examples, tuple) and len(examples) == 2 and all(map(_is_array, examples)):
        inputs, labels = map(np.asarray, examples)
        return zip(inputs, labels, strict=True)
    if isinstance(examples, Iterable):
        return examples
    return (examples[i] for i in range(len(examples)))


def _is_array(value: object) -> bool:
    return hasattr(value, "shape") and len(value.shape) > 0


def _key(example: Mapping[str, object], said: str | None, usual: Sequence[str], what: str) -> str:
    if said is not None:
        if said in example:
            return said
        raise ValueError(f"examples have no {said!r}; they have {', '.join(map(str, example))}")
    there = [key for key in example if str(key).lower() in usual]
    if len(there) == 1:
        return there[0]
    raise ValueError(
        f"examples have {', '.join(map(str, example))}; say which of them is {what}, as "
        f"{what}={next(iter(example), 'NAME')!r}"
    )


def _as_array(value: object, reading: Reading) -> np.ndarray:
    if isinstance(value, Image.Image):
        return fit_image(value, reading)
    found = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    if found.ndim == 0 or found.dtype.kind not in "biuf":
        raise TypeError(f"inputs must be arrays of numbers, got {type(value).__name__}")
    return found


def _as_label(label: object, of: np.ndarray, number: int) -> int | float | bool | str:
    found = np.asarray(label.numpy() if hasattr(label, "numpy") else label)
    if found.dtype.kind == "S":
        found = found.astype(str)
    one_hot = found.ndim == 1 and (found == 1).sum() == (found != 0).sum() == 1 < found.size
    if one_hot and len(found) != len(of):  # else it may be a batch
        return int(found.argmax())
    if found.size != 1:
        raise ValueError(
            f"example {number} must have one label, got the shape {list(found.shape)}; take "
            "batches apart first (unbatch), and one-hot labels by their argmax"
        )
    plain: int | float | bool | str = found.reshape(()).item()
    return plain
