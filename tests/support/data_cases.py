"""Data of a user's own in files, as people have them: one case each.

Images are `X` and `X[:3]`, of the classes `Y`, unless a case says otherwise.
"""

import io
import pickle
import struct

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.ipc
from file_cases import asks, content, foreign, loads, npz, wrong
from PIL import Image

X = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
Y = np.array([0, 0, 1, 1, 2, 2])
SPLITS = {"train": slice(6), "test": slice(3)}
GREY = X[..., :1]
TABLE = pd.DataFrame({"age": [31.5, 40, 9, 77, 12, 60], "smokes": [0, 1, 0, 1, 0, 1], "label": Y})
NUMBERS = TABLE[["age", "smokes"]].to_numpy()
BITS = (np.arange(24).reshape(6, 4) % 3 == 0).astype(int)


def arrays(x=X, y=Y, names=("x_train", "y_train", "x_test", "y_test"), name="a.npz"):
    """Returns a writer of an `.npz` of two splits."""
    return npz(name, **dict(zip(names, (x, y, x[:3], y[:3]), strict=True)))


def files(of, folder=""):
    """Returns a writer of files by name, each of bytes or text."""

    def write(root):
        root = root / "own"
        for name, data in of.items():
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            content(name, data)(root / folder)
        return root

    return write


def png(image, image_format="PNG", mode=None):
    """Returns an encoded image."""
    picture = Image.fromarray(image.squeeze())
    file = io.BytesIO()
    (picture if mode is None else picture.convert(mode)).save(file, image_format)
    return file.getvalue()


def images(x=X, splits=("train", "test"), classes=("ant", "bee", "cat"), end="png", **others):
    """Returns the files of an image folder by name; `others` are further ones."""
    found = {}
    for split, rows in zip(splits, SPLITS.values(), strict=True):
        for i in range(6)[rows]:
            found[f"{split}/{classes[Y[i]]}/{i}.{end}"] = png(x[i])
    return found | others


def idx(array):
    """Returns an IDX file of bytes."""
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def idx_files(images="{}-images-idx3-ubyte", labels="{}-labels-idx1-ubyte", test="t10k", end=""):
    """Returns MNIST's four files by name."""
    found = {}
    for split, rows in zip(("train", test), SPLITS.values(), strict=True):
        found[images.format(split) + end] = idx(GREY[rows, ..., 0])
        found[labels.format(split) + end] = idx(Y[rows])
    return found


WIDE = np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def cifar(hundred=False):
    """Returns CIFAR's files by name."""
    rows = WIDE.transpose(0, 3, 1, 2).reshape(6, -1)
    if hundred:
        parts = {"train": range(6), "test": range(3)}
        names, meta, key = {b"fine_label_names": [b"a", b"b", b"c"]}, "meta", b"fine_labels"
    else:
        parts = {f"data_batch_{i}": range(i - 1, i) for i in range(1, 6)} | {"test_batch": range(3)}
        parts["data_batch_5"] = range(4, 6)
        names, meta, key = {b"label_names": [b"a", b"b", b"c"]}, "batches.meta", b"labels"
    found = {
        part: pickle.dumps({b"data": rows[list(of)], key: Y[list(of)].tolist()}, 2)
        for part, of in parts.items()
    }
    return found | {meta: pickle.dumps(names, 2)}


def parquet(frame):
    """Returns a parquet file."""
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


def hugging_face_frames(cell=None, image="image", label="label", **more):
    """Returns two tables of images, by split; `more` are further columns of one value."""
    cell = cell or (lambda i: {"bytes": png(X[i]), "path": f"{i}.png"})
    return {
        split: pd.DataFrame({image: [cell(i) for i in range(6)[rows]], label: Y[rows]}).assign(
            **more
        )
        for split, rows in SPLITS.items()
    }


def hugging_face(*options, **more):
    """Returns the tables as parquet."""
    return {split: parquet(frame) for split, frame in hugging_face_frames(*options, **more).items()}


def tables(frame=TABLE, names=("train.csv", "test.csv"), encoding="utf-8", **options):
    """Returns a writer of tables of two splits."""
    texts = (frame[rows].to_csv(index=False, **options) for rows in SPLITS.values())
    return files({name: text.encode(encoding) for name, text in zip(names, texts, strict=True)})


def one(text, name="own.csv", encoding="utf-8"):
    """Returns a writer of one table."""
    return content(name, text, encoding)


def mat(x):
    """Returns a file of MATLAB's as SVHN's are."""
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(
        file,
        {"X": x.transpose(1, 2, 3, 0), "y": np.where(Y[: len(x)] == 0, 10, Y[: len(x)])[:, None]},
    )
    return file.getvalue()


def libsvm(rows):
    """Returns lines of libsvm's."""
    pairs = zip(NUMBERS[rows], Y[rows], strict=True)
    return "\n".join(f"{label} 1:{a} 2:{b}" for (a, b), label in pairs)


def arrow(frame, *, stream):
    """Returns a table of Arrow."""
    table, file = pyarrow.Table.from_pandas(frame), io.BytesIO()
    new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with new(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def npys(names=("x_train", "y_train", "x_test", "y_test")):
    found = {}
    for name, array in zip(names, (X, Y, X[:3], Y[:3]), strict=True):
        file = io.BytesIO()
        np.save(file, array)
        found[f"{name}.npy"] = file.getvalue()
    return found


STANDARD = {"normalisation": "standard"}
HALF = {"test_fraction": 0.5}
ROWS = [f"{a},{b},{'xyz'[y]}" for (a, b), y in zip(NUMBERS, Y, strict=True)]
ARFF = (
    "@relation own\n@attribute age numeric\n@attribute smokes numeric\n"
    "@attribute class {x,y,z}\n@data\n"
)
CASES = [
    # Arrays
    loads(".npz with x_train, y_train, x_test, y_test", arrays()),
    loads(
        ".npz with X_train, Y_train, …", arrays(names=("X_train", "Y_train", "X_test", "Y_test"))
    ),
    loads(
        ".npz with train_images, train_labels, … (MedMNIST), val_images beside them",
        npz(
            train_images=X,
            train_labels=Y[:, None],
            test_images=X[:3],
            test_labels=Y[:3, None],
            val_images=X[3:],
            val_labels=Y[3:, None],
        ),
    ),
    loads(
        ".npz with train_images and val_images alone",
        npz(train_images=X, train_labels=Y, val_images=X[:3], val_labels=Y[:3]),
        warns="validation set .val. stands for it",
    ),
    loads(
        ".npz with train_data, train_targets, …",
        arrays(names=("train_data", "train_targets", "test_data", "test_targets")),
    ),
    loads(".npz with xtrain, ytrain, …", arrays(names=("xtrain", "ytrain", "xtest", "ytest"))),
    loads(".npz with trainX, trainY, …", arrays(names=("trainX", "trainY", "testX", "testY"))),
    asks(
        ".npz with features, labels (Purchase-100 as it is given out)",
        npz(features=BITS.astype(np.float32), labels=np.eye(3)[Y]),
        "test_fraction=0.2",
        {"x": BITS, "sizes": (3, 3)},
        **HALF,
    ),
    asks(".npz with x, y", npz(x=X, y=Y), "test_fraction=0.2", {"sizes": (3, 3)}, **HALF),
    asks(
        ".npz with two arrays of any names",
        npz(arr_0=X, arr_1=Y),
        "test_fraction=0.2",
        {"sizes": (3, 3)},
        **HALF,
    ),
    foreign(
        ".npz with arr_0, …, arr_3",
        npz(arr_0=X, arr_1=Y, arr_2=X[:3], arr_3=Y[:3]),
        "lacks train and holds arr_0, .*; call its arrays x_train",
    ),
    loads(".NPZ", arrays(name="A.NPZ")),
    loads("a folder of x_train.npy, y_train.npy, …", files(npys())),
    foreign("one .npy", content("x.npy", npys()["x_train.npy"]), "numpy.savez"),
    loads("labels [n, 1]", arrays(y=Y[:, None])),
    loads("labels one-hot, integers", arrays(y=np.eye(3, dtype=int)[Y])),
    loads("labels one-hot, floats", arrays(y=np.eye(3)[Y])),
    loads("labels as whole floats", arrays(y=Y.astype(float))),
    loads("labels as booleans", arrays(y=Y > 0), {"y": Y > 0}),
    loads("labels as texts", arrays(y=np.array(["ant", "bee", "cat"])[Y])),
    loads("labels as bytes", arrays(y=np.array([b"ant", b"bee", b"cat"])[Y])),
    loads("labels -1 and 1", arrays(y=np.where(Y > 0, 1, -1)), {"y": Y > 0}),
    loads("labels from 1", arrays(y=Y + 1), {"y": Y + 1}),
    wrong("labels with fractions", arrays(y=Y + 0.5), "must be classes, got 0.5"),
    wrong(
        "labels with gaps (nan)", arrays(y=np.where(Y > 1, np.nan, Y)), "must be classes, got nan"
    ),
    wrong("rows that are not one-hot", arrays(y=np.ones((6, 3))), "not one-hot"),
    wrong(
        "a test class that is not in the training set",
        npz(x_train=X, y_train=Y, x_test=X[:3], y_test=Y[:3] + 5),
        "must be < 3",
    ),
    wrong(
        "as many labels as not images",
        npz(x_train=X, y_train=Y[:5], x_test=X[:3], y_test=Y[:3]),
        "one label per example",
    ),
    loads("pixels in 0 … 255, of any whole type", arrays(X.astype(np.int64))),
    loads("pixels as floats in [0, 1]", arrays(X / 255)),
    loads("pixels as half floats", arrays((X / 255).astype(np.float16)), {"tolerance": 0.2}),
    asks("pixels as floats in 0 … 255", arrays(X.astype(np.float32)), "white=255", white=255),
    asks("pixels of 16 bits", arrays(X.astype(np.uint16) * 257), "white=65535", white=65535),
    asks(
        "pixels that are normalised",
        arrays((X / 255 - 0.5) / 0.25),
        "layout='features'",
        {"x": ((X / 255 - 0.5) / 0.25).reshape(6, -1)},
        layout="features",
        **STANDARD,
    ),
    asks("pixels 0 and 1", arrays(X // 128), "white=1", {"x": X // 128}, white=1),
    loads("pixels as booleans", arrays(X > 127), {"x": X > 127}),
    loads("channels first", arrays(X.transpose(0, 3, 1, 2))),
    loads("grey, [n, h, w]", arrays(GREY[..., 0]), {"x": GREY / 255}),
    loads("grey, [n, 1, h, w]", arrays(GREY.transpose(0, 3, 1, 2)), {"x": GREY / 255}),
    loads("flat pixels, [n, d] bytes", arrays(X.reshape(6, -1)), {"x": X.reshape(6, -1) / 255}),
    asks(
        "arrays of images that are wanted in another size and mode",
        arrays(),
        "",
        {"shape": (8, 8, 1)},
        resize=8,
        mode="grey",
    ),
    wrong(
        "Python objects",
        arrays(np.array([np.ones(2), np.ones(3)] * 3, object)),
        "numbers, all examples of one shape",
    ),
    wrong(
        "nan among pixels", arrays(np.where(X > 250, np.nan, X / 255)), "must be finite, got nan"
    ),
    wrong("cut short", content("a.npz", b"PK\x03\x04"), "save it again with numpy.savez"),
    wrong("no examples", arrays(X[:0], Y[:0]), "at least one example"),
    # IDX and CIFAR
    loads("IDX files", files(idx_files()), {"x": GREY / 255}),
    loads("IDX files, .gz", files(idx_files(end=".gz")), {"x": GREY / 255}),
    loads(
        "IDX files with dots in their names (Kaggle)",
        files(idx_files("{}-images.idx3-ubyte", "{}-labels.idx1-ubyte")),
        {"x": GREY / 255},
    ),
    loads("IDX files of `test`", files(idx_files(test="test")), {"x": GREY / 255}),
    loads("IDX files in torchvision's MNIST/raw", files(idx_files(), "raw"), {"x": GREY / 255}),
    wrong(
        "IDX files, one missing",
        files({k: v for k, v in idx_files().items() if "t10k-l" not in k}),
        "lacks the labels of test",
    ),
    wrong(
        "IDX files, cut short",
        files(idx_files() | {"train-images-idx3-ubyte": b"no"}),
        "as an IDX file",
    ),
    loads("cifar-10-batches-py", files(cifar()), {"x": WIDE / 255}),
    loads(
        "the folder around cifar-10-batches-py",
        files(cifar(), "cifar-10-batches-py"),
        {"x": WIDE / 255},
    ),
    loads("cifar-100-python", files(cifar(hundred=True)), {"x": WIDE / 255}),
    wrong(
        "cifar-10-batches-py that names other code",
        files(cifar() | {"data_batch_1": pickle.dumps({b"data": print}, 2)}),
        "names .*print, which is no array",
    ),
    # Hugging Face
    loads(
        "parquet of images, structs",
        files({f"data/{k}-00000-of-00001.parquet": v for k, v in hugging_face().items()}),
    ),
    loads(
        "parquet of images, bytes",
        files({f"{k}.parquet": v for k, v in hugging_face(lambda i: png(X[i])).items()}),
    ),
    loads(
        "parquet with img and fine_label, coarse_label beside it",
        files(
            {
                f"{k}.parquet": v
                for k, v in hugging_face(image="img", label="fine_label", coarse_label=1).items()
            }
        ),
    ),
    loads(
        "parquet in folders train and test",
        files({f"{k}/0000.parquet": v for k, v in hugging_face().items()}),
    ),
    asks(
        "one parquet of images",
        content("own.parquet", hugging_face()["train"]),
        "test_fraction=0.2",
        {"sizes": (3, 3)},
        **HALF,
    ),
    loads(
        "a folder that `save_to_disk` wrote",
        files(
            {"dataset_dict.json": "{}"}
            | {
                f"{split}/data-00000-of-00001.arrow": arrow(frame, stream=True)
                for split, frame in hugging_face_frames().items()
            }
        ),
    ),
    loads(
        "feather",
        files({f"{s}.feather": arrow(TABLE[rows], stream=False) for s, rows in SPLITS.items()}),
        {"x": NUMBERS, "said": STANDARD},
    ),
    # Image folders
    loads("image folder train, test", files(images())),
    loads(
        "image folder train, val",
        files(images(splits=("train", "val"))),
        warns="validation set .val. stands",
    ),
    loads(
        "image folder train, validation",
        files(images(splits=("train", "validation"))),
        warns="validation set .validation. stands",
    ),
    loads("image folder train, valid, test", files(images() | images(splits=("train", "valid")))),
    loads("image folder Train, Test", files(images(splits=("Train", "Test")))),
    loads("image folder training, testing", files(images(splits=("training", "testing")))),
    loads("class folders 0, 1, 10", files(images(classes=("0", "1", "10")))),
    loads(
        "stray files among images",
        files(images() | {"train/ant/README.txt": "x", "train/ant/.DS_Store": "x"}),
        warns="1 files are no images",
    ),
    loads(
        "stray files beside class folders",
        files(images() | {"README.md": "x", "train/list.txt": "x"}),
    ),
    loads("a folder __MACOSX", files(images() | {"__MACOSX/x": "x"})),
    loads(
        "images deeper in class folders (Tiny ImageNet)",
        files(
            {k.replace("/", "/", 1).replace("ant/", "ant/images/"): v for k, v in images().items()}
        ),
    ),
    loads(".PNG", files(images(end="PNG"))),
    loads(".bmp", files({k.replace("png", "bmp"): png(X[int(k[-5])], "BMP") for k in images()})),
    loads(".tif", files({k.replace("png", "tif"): png(X[int(k[-5])], "TIFF") for k in images()})),
    loads(
        "JPEG",
        files({k.replace("png", "jpg"): png(X[int(k[-5])], "JPEG") for k in images()}),
        {"tolerance": 200},
    ),
    loads("grey images", files(images(GREY)), {"x": GREY / 255}),
    loads(
        "palettes",
        files({k: png(X[int(k[-5])] // 128 * 255, mode="P") for k in images()}),
        {"x": X // 128},
    ),
    loads(
        "black and white images of 1 bit",
        files({k: png(GREY[int(k[-5])] // 128 * 255, mode="1") for k in images()}),
        {"x": GREY // 128},
    ),
    asks(
        "RGBA",
        files(images(np.concatenate([X, np.full_like(GREY, 255)], -1))),
        "mode='rgb'",
        mode="rgb",
    ),
    asks(
        "16-bit PNG",
        files(images(GREY.astype(np.uint16) * 257)),
        "mode='grey'",
        {"x": GREY / 255},
        mode="grey",
    ),
    asks(
        "CMYK JPEG",
        files({k.replace("png", "jpg"): png(X[int(k[-5])], "JPEG", "CMYK") for k in images()}),
        "mode='rgb'",
        {"tolerance": 200},
        mode="rgb",
    ),
    asks(
        "images of many sizes",
        files(images() | {"train/ant/9.png": png(WIDE[0])}),
        "resize=4",
        {"shape": (4, 4, 3), "sizes": (7, 3)},
        resize=4,
    ),
    asks(
        "grey and RGB images",
        files(images() | {"test/ant/1.png": png(GREY[1])}),
        "mode='rgb'",
        {"shape": (4, 5, 3)},
        mode="rgb",
    ),
    asks(
        "class folders without train and test",
        files({k.partition("/")[2]: v for k, v in images().items() if "train" in k}),
        "test_fraction=0.2",
        {"sizes": (3, 3)},
        **HALF,
    ),
    asks(
        "train without test",
        files({k: v for k, v in images().items() if "train" in k}),
        "test_fraction=0.2",
        {"sizes": (3, 3)},
        **HALF,
    ),
    foreign(
        "images without class folders, and a table of their classes",
        files(
            {f"train/{i}.png": png(X[i]) for i in range(6)}
            | {f"{k}.csv": "file,label\n0.png,0\n1.png,1\n" for k in SPLITS}
        ),
        "names images in files: put each image into the folder of its class",
    ),
    wrong("an empty class folder", files(images() | {"train/dog/.keep": "x"}), "holds no images"),
    wrong(
        "a test class that is not in training",
        files(images() | {"test/dog/1.png": png(X[0])}),
        "must hold classes of .* got dog",
    ),
    wrong(
        "a damaged image",
        files(images() | {"train/ant/0.png": b"\x89PNG"}),
        "cannot decode .*0.png",
    ),
    wrong("an empty folder", files({".keep": ""}), "must hold a training set"),
    # Tables
    asks(
        "CSV, train and test, numbers of any range",
        tables(),
        "normalisation='standard'",
        {"x": NUMBERS},
        **STANDARD,
    ),
]
_TABLES = [
    ("TSV", tables(names=("train.tsv", "test.tsv"), sep="\t"), {}),
    ("CSV with semicolons", tables(sep=";"), {}),
    ("CSV with semicolons and decimal commas", tables(sep=";", decimal=","), {}),
    ("CSV with bars", tables(sep="|"), {}),
    ("text with spaces, .data (UCI)", tables(names=("train.data", "test.data"), sep=" "), {}),
    (".CSV", tables(names=("train.CSV", "test.CSV")), {}),
    (
        ".csv.gz",
        files({f"{k}.csv.gz": TABLE[rows].to_csv(index=False) for k, rows in SPLITS.items()}),
        {},
    ),
    ("byte order mark", tables(encoding="utf-8-sig"), {}),
    ("UTF-16", tables(encoding="utf-16"), {}),
    ("CRLF", tables(lineterminator="\r\n"), {}),
    (
        "parquet of numbers",
        files({f"{k}.parquet": parquet(TABLE[rows]) for k, rows in SPLITS.items()}),
        {},
    ),
    (
        "labels as texts, `diagnosis`",
        tables(
            TABLE.assign(label=np.array(["ill", "so", "well"])[Y]).rename(
                columns={"label": "diagnosis"}
            )
        ),
        {},
    ),
    ("labels as True and False", tables(TABLE.assign(label=Y > 0)), {"y": Y > 0}),
    ("labels -1 and 1", tables(TABLE.assign(label=np.where(Y > 0, 1, -1))), {"y": Y > 0}),
    ("label column first", tables(TABLE[["label", "age", "smokes"]]), {}),
    ("features True and False", tables(TABLE.assign(smokes=TABLE.smokes == 1)), {}),
    ("quoted header and cells", tables(quoting=1), {}),
    (
        "header of numbers, as pandas counts columns",
        tables(TABLE.assign(more=0).rename(columns={"age": "0", "smokes": "1", "more": "2"})),
        {"x": np.c_[NUMBERS, np.zeros(6)]},
    ),
]
CASES += [
    loads(f"table: {what}", write, {"x": NUMBERS, "said": STANDARD} | finds)
    for what, write, finds in _TABLES
]
CASES += [
    loads(
        "table: with a column of row numbers, as pandas writes it",
        files({f"{k}.csv": TABLE[rows].to_csv() for k, rows in SPLITS.items()}),
        {"x": NUMBERS, "said": STANDARD},
        warns="no name and numbers its rows",
    ),
    asks(
        "table: label column of another name",
        tables(TABLE.rename(columns={"label": "outcome"})),
        "label='outcome'",
        {"x": NUMBERS, "said": STANDARD},
        label="outcome",
    ),
    asks(
        "table: no header, label last",
        tables(header=False),
        "label=-1",
        {"x": NUMBERS, "said": STANDARD},
        label=-1,
    ),
    asks(
        "table: no header, label first",
        tables(TABLE[["label", "age", "smokes"]], header=False),
        "by its position",
        {"x": NUMBERS, "said": STANDARD},
        label=0,
    ),
    asks(
        "table: no header, labels as texts last (UCI's iris)",
        tables(TABLE.assign(label=np.array(["a", "b", "c"])[Y]), header=False),
        "label=-1",
        {"x": NUMBERS, "said": STANDARD},
        label=-1,
    ),
    asks(
        "table: a column of names",
        tables(TABLE.assign(person=[f"p{i}" for i in range(6)])),
        r"drop=\('person',\)",
        {"x": NUMBERS, "said": STANDARD},
        drop=("person",),
    ),
    asks(
        "table: one file",
        one(TABLE.to_csv(index=False)),
        "test_fraction=0.2",
        {"sizes": (3, 3), "said": STANDARD},
        **HALF,
    ),
    asks(
        "table: features 0 and 1, label first, no header, no ending (Purchase)",
        one(
            "\n".join(f"{y}," + ",".join(map(str, row)) for row, y in zip(BITS, Y, strict=True)),
            "dataset_purchase",
        ),
        "by its position|test_fraction",
        {"sizes": (3, 3), "shape": (4,)},
        label=0,
        **HALF,
    ),
    asks(
        "table: one .txt",
        one(TABLE.to_csv(index=False, sep="\t"), "own.txt"),
        "test_fraction=0.2",
        {"sizes": (3, 3), "said": STANDARD},
        **HALF,
    ),
    asks(
        "table: several columns with usual names of labels",
        tables(TABLE.assign(target=0)),
        "label='target'",
        {"shape": (3,), "said": STANDARD},
        label="label",
    ),
    wrong(
        "table: a missing number",
        tables(TABLE.assign(age=[1, None, 3, 4, 5, 6])),
        "1 rows of .* lack a number, the first is row 1; remove or fill",
    ),
    wrong(
        "table: a missing number as ? (UCI's adult)",
        tables(TABLE.assign(age=["1", "?", "3", "4", "5", "6"])),
        "1 rows of .* lack a number",
    ),
    wrong(
        "table: a missing label",
        tables(TABLE.assign(label=[None, *"aabbb"])),
        "labels of .* are missing, first in row 0",
    ),
    wrong(
        "table: a target that is no class",
        tables(TABLE.assign(label=TABLE.age + 0.1)),
        "must be classes",
    ),
    loads(
        "table: columns of test in another order",
        files(
            {
                "train.csv": TABLE.to_csv(index=False),
                "test.csv": TABLE[:3][["smokes", "label", "age"]].to_csv(index=False),
            }
        ),
        {"x": NUMBERS, "said": STANDARD},
    ),
    wrong(
        "table: other columns in test",
        files(
            {
                "train.csv": TABLE.to_csv(index=False),
                "test.csv": TABLE.drop(columns="age").to_csv(index=False),
            }
        ),
        "same columns, but only one has age",
        {"said": STANDARD},
    ),
    # Other formats
    loads(
        "MATLAB's train_32x32.mat, test_32x32.mat (SVHN)",
        files({f"{k}_32x32.mat": mat(WIDE[rows]) for k, rows in SPLITS.items()}),
        {"x": WIDE / 255},
    ),
    loads(
        "libsvm",
        files({f"{split}.libsvm": libsvm(rows) for split, rows in SPLITS.items()}),
        {"x": NUMBERS, "said": STANDARD},
    ),
    loads(
        "ARFF",
        files({f"{split}.arff": ARFF + "\n".join(ROWS[rows]) for split, rows in SPLITS.items()}),
        {"x": NUMBERS, "said": STANDARD},
    ),
    foreign("Excel", content("own.xlsx", b"PK"), "save the sheet as CSV"),
    foreign("HDF5", content("own.h5", b"\x89HDF"), "numpy.savez"),
    foreign("pickle", content("own.pkl", b"\x80"), "no pickle is opened"),
    foreign("tensors of PyTorch", content("own.pt", b"PK"), "numpy.savez"),
    foreign(".tar.gz", content("cifar-10-python.tar.gz", b"\x1f\x8b"), "unpack it"),
    foreign(".zip", content("own.zip", b"PK"), "unpack it"),
]
