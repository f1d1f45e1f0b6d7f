"""Files that list what to forget, as people have them: one case each.

All list the positions `WANTED` of `N` training examples, but for those in which nothing is listed
that could be forgotten.
"""

import bz2
import io
import json
import lzma

import numpy as np
import pandas as pd
from file_cases import asks, content, foreign, loads, npy, npz, wrong
from PIL import Image

N = 40
WANTED = [2, 4, 17]
MASK = np.isin(np.arange(N), WANTED)
ZEROS, TRUTHS = ("\n".join(map(str, m)) + "\n" for m in (MASK.astype(int), MASK))
IDS = [f"p{i:03d}" for i in range(N)]
FLOATS = "4.000000000000000000e+00\n2.000000000000000000e+00\n1.700000000000000000e+01\n"


def array_bytes(values):
    """Returns an `.npy` file."""
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def parquet(**columns):
    """Returns a writer of a parquet table."""

    def write(folder):
        pd.DataFrame(columns).to_parquet(folder / "rows.parquet")
        return folder / "rows.parquet"

    return write


def beside_table(name, data, ids):
    """Returns a writer of a list beside the table of the training set, whose ids it names."""

    def write(folder):
        pd.DataFrame({"image_id": ids, "label": 0}).to_csv(folder / "train.csv", index=False)
        return content(name, data)(folder)

    return write


def beside_images(data):
    """Returns a writer of a list beside a folder of images, 20 of each of two classes."""

    def write(folder):
        for label in ("cat", "dog"):
            for split, count in (("train", 20), ("test", 1)):
                (folder / "photos" / split / label).mkdir(parents=True)
                for i in range(count):
                    path = folder / "photos" / split / label / f"{label}{i:02d}.png"
                    Image.new("L", (1, 1)).save(path)
        return content("rows.txt", data)(folder)

    return write


TABLE = "person,age\n4,31\n2,40\n17,9\n"
SAY_IDS = "by ids, the first is '.*', and not by positions; say .* file:LIST@TRAIN.csv#COLUMN"
CASES = [
    # Tables
    loads("CSV with the header `index`", content("a.csv", "index\n4\n2\n17\n")),
    loads(
        "CSV with the header `Index` and others", content("a.csv", "Index,why\n4,x\n2,y\n17,z\n")
    ),
    loads("CSV with one column of any name", content("a.csv", "rows that go\n4\n2\n17\n")),
    loads("CSV with `image_id` of positions", content("a.csv", "image_id,who\n4,x\n2,y\n17,z\n")),
    loads("CSV with ids and `index`", content("a.csv", "image_id,index\nx9,4\nx1,2\nx3,17\n")),
    loads(
        "CSV of pandas, with its own index", content("a.csv", ",index,y\n0,4,1\n1,2,1\n2,17,0\n")
    ),
    loads(
        "CSV of pandas, its index alone beside one column",
        content("a.csv", ",row\n0,4\n1,2\n2,17\n"),
    ),
    loads(
        "CSV with `forget_idx` among others", content("a.csv", "forget_idx,age\n4,31\n2,40\n17,9\n")
    ),
    loads("CSV without a header, one column", content("a.csv", "4\n2\n17\n")),
    asks("CSV with columns of any names", content("a.csv", TABLE), "#person", column="person"),
    asks(
        "CSV without a header, two columns",
        content("a.csv", "4,31\n2,40\n17,9\n"),
        "#0 for the first column",
        column="0",
    ),
    asks(
        "CSV without a header, lines of equal length that are one list",
        content("a.csv", "4,2\n17,5\n"),
        "#all for a list",
        [2, 4, 5, 17],
        column="all",
    ),
    loads(
        "CSV with semicolons, as Excel writes it in Europe",
        content("a.csv", "index;y\n4;1\n2;1\n17;0\n"),
    ),
    loads("CSV with Excel's line `sep=;`", content("a.csv", "sep=;\nindex;y\n4;1\n2;1\n17;0\n")),
    loads("one line with semicolons", content("a.csv", "4;2;17")),
    loads("TSV", content("a.tsv", "index\ty\n4\t1\n2\t1\n17\t0\n")),
    loads("CSV with bars", content("a.csv", "index|y\n4|1\n2|1\n17|0\n")),
    loads(
        "quoted cells", content("a.csv", '"index","why"\n"4","moved, twice"\n"2","x"\n"17","y"\n')
    ),
    loads("spaces after commas", content("a.csv", "index, y\n4, 1\n2, 1\n17, 0\n")),
    loads("header in quotes, one column", content("a.csv", '"index"\n"4"\n"2"\n"17"\n')),
    loads("parquet with `index`", parquet(index=[4, 2, 17], y=[1, 1, 0])),
    loads("parquet with one column", parquet(rows=[4, 2, 17])),
    asks(
        "parquet with columns of any names",
        parquet(person=[4, 2, 17], age=[31, 40, 9]),
        "#person",
        column="person",
    ),
    foreign("Excel's .xlsx", content("a.xlsx", b"PK\x03\x04"), "save the sheet as CSV"),
    # Text
    loads("one per line", content("a.txt", "4\n2\n17\n")),
    loads("no ending", content("forget", "4\n2\n17\n")),
    loads("commas", content("a.txt", "4, 2, 17")),
    loads("commas, lines of unequal length", content("a.txt", "4, 2\n17\n")),
    loads("commas at the ends of lines", content("a.txt", "4,\n2,\n17,\n")),
    loads("spaces", content("a.txt", "4 2 17\n")),
    loads("tabs", content("a.txt", "4\t2\t17\n")),
    loads("`numpy.savetxt`", content("a.txt", FLOATS)),
    loads("`numpy.savetxt` with header=", content("a.txt", "# which go\n" + FLOATS)),
    asks(
        "`numpy.savetxt` of [m, 2]",
        content("a.txt", "4 31\n2 40\n17 9\n"),
        "#0 for the first column",
        column="0",
    ),
    loads("a list as Python prints it", content("a.txt", "[4, 2, 17]\n")),
    loads("a tuple or a set as Python prints it", content("a.txt", "{4, 2, 17}\n")),
    loads("an array as NumPy prints it", content("a.txt", "[ 4  2\n 17]\n")),
    loads("an array as its `repr` is", content("a.txt", "array([ 4,  2, 17])\n")),
    loads("a tensor as PyTorch prints it", content("a.txt", "tensor([ 4,  2, 17])\n")),
    loads("byte order mark", content("a.csv", "index\n4\n2\n17\n", "utf-8-sig")),
    loads(
        "UTF-16, Excel's Unicode text", content("a.txt", "index\ty\n4\t1\n2\t1\n17\t0\n", "utf-16")
    ),
    loads("CRLF", content("a.csv", "index\r\n4\r\n2\r\n17\r\n")),
    loads("CR alone", content("a.csv", "index\r4\r2\r17\r")),
    loads("comments after #", content("a.txt", "# which\n4\n2 # the second\n17")),
    loads("comments after %", content("a.txt", "% which\n4\n2\n17")),
    loads("blank lines", content("a.txt", "\n4\n\n2\n   \n17\n\n")),
    loads("whole floats", content("a.csv", "index\n4.0\n2.0\n17.0\n")),
    loads("leading zeros and signs", content("a.txt", "0004\n+2\n017\n")),
    loads("runs", content("a.txt", "2-2\n4\n17..17\n")),
    loads(
        "runs after commas",
        content("a.csv", "2, 4, 17-17"),
    ),
    loads("a single row", content("a.txt", "7\n"), [7]),
    loads("a single row below a header", content("a.csv", "index\n7\n"), [7]),
    loads("upper-case endings: .TXT", content("A.TXT", "4\n2\n17\n")),
    loads("upper-case endings: .CSV", content("A.CSV", "index\n4\n2\n17\n")),
    loads("packed: .csv.gz", content("a.csv.gz", "index\n4\n2\n17\n")),
    loads("packed: .TXT.GZ", content("A.TXT.GZ", "4\n2\n17\n")),
    loads("packed: .json.gz", content("a.json.gz", "[4, 2, 17]")),
    loads("packed: .txt.xz", content("a.txt.xz", lzma.compress(b"4\n2\n17\n"))),
    loads("packed: .csv.bz2", content("a.csv.bz2", bz2.compress(b"index\n4\n2\n17\n"))),
    loads("YAML, a list", content("a.yaml", "- 4\n- 2\n- 17\n")),
    # Masks
    loads("zeros and ones, one per line", content("a.txt", ZEROS)),
    loads("zeros and ones below a header", content("a.csv", "forget\n" + ZEROS)),
    loads("True and False", content("a.csv", "forget\n" + TRUTHS)),
    loads("zeros and ones as floats", content("a.txt", "\n".join(f"{m:.18e}" for m in MASK))),
    loads(
        "a column `forget` of True and False beside ids",
        content("a.csv", "id,forget\n" + "\n".join(f"{i},{m}" for i, m in enumerate(MASK))),
    ),
    loads(
        "yes and no", content("a.csv", "forget\n" + "\n".join("yes" if m else "no" for m in MASK))
    ),
    loads(".npy of booleans", npy(MASK)),
    loads(".npy of zeros and ones", npy(MASK.astype(np.int64))),
    loads(".npy of zeros and ones, floats [n, 1]", npy(MASK.astype(float)[:, None])),
    loads(".npz of a mask", npz(mask=MASK)),
    loads("JSON of true and false", content("a.json", json.dumps(MASK.tolist()))),
    # Arrays
    loads(".npy", npy(np.array([4, 2, 17]))),
    loads(".npy of int8", npy(np.array([4, 2, 17], np.int8))),
    loads(".npy of uint64", npy(np.array([4, 2, 17], np.uint64))),
    loads(".npy of whole floats", npy(np.array([4.0, 2, 17]))),
    loads(".npy of [m, 1]", npy(np.array([[4], [2], [17]]))),
    loads(".npy of [1, m]", npy(np.array([[4, 2, 17]]))),
    loads(".npy of one number", npy(np.array(7)), [7]),
    loads(".NPY", npy(np.array([4, 2, 17]), "A.NPY")),
    loads("packed: .npy.gz", content("a.npy.gz", array_bytes(np.array([4, 2, 17])))),
    asks(".npy of [m, 2]", npy(np.array([[4, 31], [2, 40], [17, 9]])), "#0", column="0"),
    loads(".npz with `forget`", npz(forget=np.array([4, 2, 17]), retain=np.arange(3))),
    loads(
        ".npz with `forget_idx` among others",
        npz(forget_idx=np.array([4, 2, 17]), retain_idx=np.arange(3)),
    ),
    loads(".npz with one array", npz(anything=np.array([4, 2, 17]))),
    loads(".NPZ", npz("A.NPZ", arr_0=np.array([4, 2, 17]))),
    asks(
        ".npz with arrays of any names",
        npz(a=np.array([4, 2, 17]), b=np.arange(3)),
        "#a",
        column="a",
    ),
    # JSON
    loads("JSON list", content("a.json", "[4, 2, 17]")),
    loads("JSON list of whole floats", content("a.json", "[4.0, 2.0, 17.0]")),
    loads("JSON list of numbers in quotes", content("a.json", '["4", "2", "17"]')),
    loads("JSON list of [m, 1]", content("a.json", "[[4], [2], [17]]")),
    loads("JSON object with `forget`", content("a.json", '{"forget": [4, 2, 17], "retain": [1]}')),
    loads(
        "JSON object with one list", content("a.JSON", '{"gdpr": [4, 2, 17], "on": "2026-01-05"}')
    ),
    loads("JSON, nested", content("a.json", '{"forget": {"rows": [4, 2, 17], "asked": "May"}}')),
    loads(
        "JSON, nested beside other objects",
        content("a.json", '{"who": {"name": "A"}, "what": {"index": [4, 2, 17]}}'),
    ),
    loads("JSON list of objects", content("a.json", '[{"index": 4}, {"index": 2}, {"index": 17}]')),
    loads(
        "JSON of pandas, by column",
        content("a.json", '{"index": {"0": 4, "1": 2, "2": 17}, "y": {"0": 1, "1": 1, "2": 0}}'),
    ),
    asks(
        "JSON object with several lists",
        content("a.json", '{"a": [4, 2, 17], "b": [1]}'),
        "#a",
        column="a",
    ),
    asks(
        "JSON list of objects with several fields",
        content("a.json", '[{"a": 4, "b": 1}, {"a": 2, "b": 1}, {"a": 17, "b": 0}]'),
        "#a",
        column="a",
    ),
    asks("JSON list of pairs", content("a.json", "[[4, 1], [2, 1], [17, 0]]"), "#0", column="0"),
    loads(
        "JSON lines of objects", content("a.jsonl", '{"index": 4}\n{"index": 2}\n{"index": 17}\n')
    ),
    loads("JSON lines of numbers", content("a.jsonl", "4\n2\n17\n")),
    loads(
        "JSON lines, .ndjson", content("a.ndjson", '{"index": 4}\n{"index": 2}\n{"index": 17}\n')
    ),
    # Ids
    asks(
        "ids in the place of positions",
        beside_table("rows.csv", "image_id\np004\np002\np017\n", IDS),
        SAY_IDS,
        ids="train.csv#image_id",
    ),
    asks(
        "ids without a header",
        beside_table("rows.txt", "p004, p002, p017", IDS),
        SAY_IDS,
        ids="train.csv",
    ),
    asks(
        "ids in JSON",
        beside_table("rows.json", '["p004", "p002", "p017"]', IDS),
        SAY_IDS,
        ids="train.csv",
    ),
    asks(
        "ids that are numbers",
        beside_table("rows.csv", "image_id\n104\n102\n117\n", range(100, 140)),
        "or ids: .* file:LIST@TRAIN.csv#COLUMN",
        ids="train.csv",
    ),
    asks(
        "paths of images",
        beside_images("cat/cat04.png\ncat/cat02.png\ncat/cat17.png\n"),
        SAY_IDS,
        ids="photos",
    ),
    asks(
        "names of images without their ending",
        beside_images("cat04\ncat02\ncat17\n"),
        SAY_IDS,
        ids="photos",
    ),
    asks(
        "paths as Windows writes them",
        beside_images("C:\\photos\\cat04.png\nC:\\photos\\cat02.png\nC:\\photos\\cat17.png\n"),
        SAY_IDS,
        ids="photos",
    ),
    # Formats that are not read
    foreign(
        "pickle",
        content("a.pkl", b"\x80\x04."),
        "no pickle is opened: save the indices with numpy.save",
    ),
    foreign("tensor of PyTorch", content("a.pt", b"PK"), "indices.numpy"),
    foreign("ZIP", content("a.zip", b"PK"), "unpack it"),
    # Nothing that could be forgotten
    wrong("empty", content("a.txt", ""), "must not be empty"),
    wrong("a header alone", content("a.csv", "index\n"), "must not be empty"),
    wrong("JSON, empty", content("a.json", "[]"), "must not be empty"),
    wrong("a mask of nothing", npy(np.zeros(N, bool)), "no training example was chosen"),
    wrong("a mask of everything", npy(np.ones(N, bool)), "must not be the whole training set"),
    wrong(
        "a mask of another length", npy(MASK[1:]), "must be 40, one per training example, got 39"
    ),
    wrong(
        "negative",
        content("a.txt", "4\n-2\n"),
        r"must lie in 0, \.\.\., 39 .* got -2: .* counted from 0",
    ),
    wrong(
        "beyond the training set",
        content("a.txt", "4\n40\n"),
        r"must lie in 0, \.\.\., 39 .* got 40: .* counted from 0",
    ),
    wrong("twice the same", content("a.txt", "4\n2\n4\n"), "distinct, got 4 2 times"),
    wrong("runs that overlap", content("a.txt", "2-5\n4-6\n"), "distinct, got 4 2 times"),
    wrong("a run that goes backwards", content("a.txt", "9-7\n"), "no run of positions"),
    wrong("fractions", content("a.txt", "4\n2.5\n"), "whole numbers, got 2.5 as entry 2"),
    wrong("a gap", content("a.csv", "index,y\n4,1\n,1\n17,0\n"), "entry 2 of .* is empty"),
    wrong("a word among numbers", content("a.txt", "4\n2\nx\n17\n"), "must be an integer, got 'x'"),
    wrong("nan", npy(np.array([4, np.nan])), "whole numbers, got nan as entry 2"),
    wrong("Python objects", npy(np.array([4, None], object)), "save the indices with numpy.save"),
    wrong(
        "ids that no example has", beside_table("rows.csv", "image_id\np004\np099\n", IDS), SAY_IDS
    ),
    wrong("cut short: .npy", content("a.npy", b"\x93NUMPY"), "save the indices with numpy.save"),
    wrong("cut short: .npz", content("a.npz", b"PK"), "save the indices with numpy.save"),
    wrong("cut short: JSON", content("a.json", "[4, 2"), "as JSON"),
    wrong("no gzip inside .gz", content("a.txt.gz", b"no gzip"), "cannot unpack"),
    wrong("bytes that are no text", content("a.txt", b"\xff\xfa\x00"), "save it as UTF-8"),
]
