"""Examples in Python as frameworks give them: one case each, of the images `X` and classes `Y`."""

import numpy as np
from data_cases import X, Y
from file_cases import asks, foreign, loads, wrong
from PIL import Image

PAIRS = [(image, int(label)) for image, label in zip(X, Y, strict=True)]
NAMES = np.array(["ant", "bee", "cat"])


def made(value):
    """Returns a writer of an object."""
    return lambda folder: value


def mapped(x="image", y="label", **more):
    """Returns a writer of mappings."""
    return made([{x: image, y: label} | more for image, label in PAIRS])


class Tensor:
    """What gives its numbers as PyTorch's and TensorFlow's tensors do."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def numpy(self):
        return self.array


class Indexed:
    """A dataset of PyTorch's kind, which has no end of its own."""

    def __len__(self):
        return len(PAIRS)

    def __getitem__(self, i):
        return PAIRS[i % len(PAIRS)]


class Table:
    """A dataset of Hugging Face's kind: rows by number, columns by name."""

    def __len__(self):
        return len(PAIRS)

    def __iter__(self):
        return ({"image": Image.fromarray(image), "label": label} for image, label in PAIRS)

    def __getitem__(self, at):
        return [row[at] for row in self] if isinstance(at, str) else list(self)[at]


CASES = [
    loads("a list of pairs", made(PAIRS)),
    loads("a generator of pairs", lambda folder: (pair for pair in PAIRS)),
    loads("zip(x, y)", lambda folder: zip(X, Y, strict=True)),
    loads("mappings of image, label", mapped()),
    loads("mappings of img, fine_label, others beside them", mapped("img", "fine_label", id=3)),
    loads("mappings of pixel_values, labels", mapped("pixel_values", "labels")),
    loads("`datasets` of Hugging Face", made(Table())),
    loads("`Dataset` of PyTorch", made(Indexed())),
    loads(
        "tensors of PyTorch, channels first, in [0, 1]",
        made([(Tensor(x.transpose(2, 0, 1) / 255), Tensor(y)) for x, y in PAIRS]),
    ),
    loads("`grain`, `tf.data`: tensors", made([(Tensor(x), Tensor(y)) for x, y in PAIRS])),
    loads(
        "`as_numpy_iterator`: mappings",
        lambda folder: iter([{"image": x, "label": np.int64(y)} for x, y in PAIRS]),
    ),
    loads("Pillow's images", made([(Image.fromarray(x), y) for x, y in PAIRS])),
    loads("columns: one mapping of arrays", made({"image": X, "label": Y})),
    loads("a pair of arrays", made((X, Y))),
    loads("triples of image, label and position", made([(x, y, 0) for x, y in PAIRS])),
    loads("labels [1]", made([(x, np.array([y])) for x, y in PAIRS])),
    loads("labels one-hot", made([(x, np.eye(3)[y]) for x, y in PAIRS])),
    loads("labels as texts", made([(x, NAMES[y]) for x, y in PAIRS])),
    loads("labels as bytes", made([(x, np.bytes_(NAMES[y])) for x, y in PAIRS])),
    loads("labels as whole floats", made([(x, float(y)) for x, y in PAIRS])),
    loads("grey images [h, w]", made([(x[..., 0], y) for x, y in PAIRS]), {"x": X[..., :1] / 255}),
    asks(
        "mappings of any keys",
        mapped("picture", "kind"),
        "say which of them is x, as x=",
        x="picture",
        y="kind",
    ),
    asks(
        "pixels as floats in 0 … 255",
        made([(x.astype(np.float32), y) for x, y in PAIRS]),
        "white=255",
        white=255,
    ),
    asks(
        "Pillow's images of several sizes",
        made([(Image.fromarray(x).resize((5 + y, 4)), y) for x, y in PAIRS]),
        "by resize=",
        {"shape": (4, 4, 3)},
        resize=4,
    ),
    asks(
        "Pillow's images, grey and RGB",
        made([(Image.fromarray(x).convert("L" if y else "RGB"), y) for x, y in PAIRS]),
        "mode=",
        {"shape": (4, 5, 1)},
        mode="grey",
    ),
    foreign("batches", made([(X, Y)]), "one label, .* take batches apart first .unbatch"),
    foreign(
        "one-hot labels as long as an image is high, which may be batches",
        made([(x, np.eye(4)[y]) for x, y in PAIRS]),
        "one-hot labels by their argmax",
    ),
    wrong("triples of position, image and label", made([(0, *pair) for pair in PAIRS]), "got int"),
    wrong("nothing", made([]), "at least one example"),
    wrong("numbers alone", made([3, 4]), "must be a mapping, or a pair"),
    wrong("texts in the place of images", made([("a text", 1)]), "arrays of numbers, got str"),
    wrong(
        "arrays of several shapes",
        made([(np.ones((2, 2)), 0), (np.ones((3, 2)), 0)]),
        "in example 1",
    ),
]
