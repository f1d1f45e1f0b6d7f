"""Logs that somebody tampered with: refused with a message, judged invalid, or harmless."""

import json
import os
import random
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import load
from spoilt_logs import edit, reseal

from unlearnkit.forging import verify
from unlearnkit.training import TrajectoryError, read_trajectory

MANIFEST, BATCHES, EXAMPLES = "manifest.json", "batches.npy", "examples.npy"
STATE, LAST = "state-0000000004.safetensors", "state-0000000010.safetensors"


def rewrite(name, function):
    def spoil(log):
        (log / name).write_bytes(function((log / name).read_bytes()))

    return spoil


def batches(function):
    def spoil(log):
        np.save(log / BATCHES, function(np.load(log / BATCHES)))

    return spoil


def header(text):
    """Puts another header on the indices."""

    def function(content):
        padded = text.encode().ljust(117) + b"\n"
        return content[:8] + struct.pack("<H", len(padded)) + padded + content[-320:]

    return rewrite(BATCHES, function)


def link(name):
    def spoil(log):
        (log / name).rename(log / "elsewhere")
        (log / name).symlink_to(log / "elsewhere")

    return spoil


def pipe(log):
    (log / STATE).unlink()
    os.mkfifo(log / STATE)


def folder(log):
    (log / STATE).unlink()
    (log / STATE).mkdir()


def sparse(log):
    with (log / STATE).open("r+b") as file:
        file.truncate(2**40)


NOT_INT32 = "no .npy of little-endian int32"
SPOILT_FILES = {
    "no manifest": (lambda log: (log / MANIFEST).unlink(), "the log lacks .*manifest.json"),
    "no state": (lambda log: (log / STATE).unlink(), "the log lacks .*state"),
    "not JSON": (rewrite(MANIFEST, lambda c: c[:-9]), "not readable as JSON"),
    "deep JSON": (rewrite(MANIFEST, lambda _: b"[" * 10**4), "not readable as JSON"),
    "not UTF-8": (rewrite(MANIFEST, lambda c: c.replace(b"mlp", b"\xff\xfe")), "not readable"),
    "a name twice": (
        rewrite(MANIFEST, lambda c: c.replace(b'"every"', b'"every": 4, "every"')),
        "a name stands twice",
    ),
    "another file's digests": (
        lambda log: (log / EXAMPLES).write_bytes((log / BATCHES).read_bytes()),
        "examples.npy is no .npy of little-endian uint64",
    ),
    "too few examples": (
        lambda log: np.save(log / EXAMPLES, np.load(log / EXAMPLES)[:-1]),
        r"\[39\] uint64 digests",
    ),
    "a list": (rewrite(MANIFEST, lambda _: b"[]"), "not of the format"),
    "int64": (batches(lambda b: b.astype(np.int64)), NOT_INT32),
    "big-endian": (batches(lambda b: b.astype(">i4")), NOT_INT32),
    "Fortran order": (batches(np.asfortranarray), NOT_INT32),
    "another shape": (batches(lambda b: b.reshape(8, 10)), r"\[8, 10\] int32 indices .* \[10, 8\]"),
    "too few": (rewrite(BATCHES, lambda c: c[:-4]), "316 bytes"),
    "too many": (rewrite(BATCHES, lambda c: c + b"\0"), "321 bytes"),
    "a pickle": (
        lambda log: np.save(log / BATCHES, np.array([{}], object), allow_pickle=True),
        NOT_INT32,
    ),
    "code in a header": (
        header(
            "{'descr': '<i4', 'fortran_order': False, 'shape': (__import__('os').abort(), 8), }"
        ),
        NOT_INT32,
    ),
    "a deep header": (header("(" * 110), NOT_INT32),
    "10^12 indices": (
        header("{'descr': '<i4', 'fortran_order': False, 'shape': (1000000000, 1000), }"),
        "indices .*, the manifest says",
    ),
    "an index too large": (batches(lambda b: np.where(b == 0, 40, b)), "1 … 40, .* 40 examples"),
    "a negative index": (batches(lambda b: np.where(b == 0, -1, b)), "-1 … 39"),
    "a link": (link(STATE), "is a link"),
    "linked batches": (link(BATCHES), "is a link"),
    "a linked manifest": (link(MANIFEST), "is a link"),
    "a pipe": (pipe, "no regular file"),
    "a folder": (folder, "no regular file"),
    "a sparse giant": (sparse, "1099511627776 bytes, but at most"),
    "no safetensors": (rewrite(STATE, lambda c: b"\xff" * len(c)), "not readable as safetensors"),
    "cut safetensors": (rewrite(STATE, lambda c: c[:-4]), "not readable as safetensors"),
}


@pytest.mark.parametrize("name", list(SPOILT_FILES))
def test_a_spoilt_file_is_refused_under_a_chain_made_right(copy, point_log, points, name):
    spoil, message = SPOILT_FILES[name]
    log = copy(point_log)
    spoil(log)
    manifest = log / MANIFEST
    intact = manifest.exists() and manifest.read_bytes() == (point_log / MANIFEST).read_bytes()
    if intact and not manifest.is_symlink():
        reseal(log)
    with pytest.raises(TrajectoryError, match=message):
        verify(log, points, tolerance=1e9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ending", ["params/fc1/kernel", "trace/fc1/kernel"])
def test_a_value_that_is_not_finite_is_refused(copy, point_log, points, ending, value):
    log = copy(point_log)
    edit(log, 8, ending, lambda w: np.where(w == w.flat[3], np.float32(value), w))
    reseal(log)
    with pytest.raises(TrajectoryError, match=f"not finite in .*{ending}"):
        verify(log, points, tolerance=1e9)


@pytest.mark.parametrize(
    ("ending", "function", "message"),
    [
        ("params/fc1/kernel", lambda w: w.astype(np.float64), "fc1/kernel .*float64"),
        ("params/fc1/kernel", lambda w: w.T.copy(), "fc1/kernel .expected"),
        ("state/step", lambda step: step + np.int32(1), "says step 5 at step 4"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(copy, point_log, points, ending, function, message):
    log = copy(point_log)
    edit(log, 4, ending, function)
    reseal(log)
    with pytest.raises(TrajectoryError, match=message):
        verify(log, points, tolerance=1e9)


def test_a_log_that_begins_with_a_memory_is_refused(copy, point_log, points):
    log = copy(point_log)
    edit(log, 0, "trace/fc1/kernel", lambda m: m + np.float32(1))
    reseal(log)
    with pytest.raises(TrajectoryError, match="begins in mid-run"):
        verify(log, points, tolerance=1e9)


def put(*path, value):
    """Puts a value into the manifest."""

    def spoil(manifest):
        node = manifest
        for name in path[:-1]:
            node = node[name]
        node[path[-1]] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (put("version", value=1), "format version 1; this release reads 2, .*: train again"),
        (put("version", value=3), "format version 3; this release reads 2$"),
        (put("format", value="other"), "not of the format unlearnkit-trajectory"),
        (put("steps", value=10**12), "'steps' is not what its other fields imply"),
        (put("recipe", "epochs", value=10**12), "malformed"),
        (put("recipe", "epochs", value=2**30), "more than"),
        (put("recipe", "epochs", value=2**20), "is not what its other fields imply"),
        (put("recipe", "learning_rate", value=1e39), "not a finite number"),
        (put("recipe", "augmentation", value="shift"), "augmentation does not suit"),
        (put("recipe", "batch_size", value=41), "batch_size=41 is larger than the data"),
        (put("batches", "file", value="../batches.npy"), "'batches' is not what"),
        (put("checkpoints", 1, value={"file": "/etc/passwd"}), "not a SHA-256"),
        (put("checkpoints", 1, value="../../etc/passwd"), "not a SHA-256"),
        (put("every", value=0), "must be >= 1"),
        (put("every", value=3), "4 checkpoints, where 1 to|the log lacks"),
        (put("start", "derived", value=1), "neither true nor false"),
        (put("start", "sha256", value="0" * 64), "is not the start that its manifest names"),
        (put("examples", "file", value="/etc/passwd"), "'examples' is not what"),
        (put("environment", "VALID: all 10 steps", value="x"), "not a name"),
        (put("environment", "device", value="x" * 5000), "not text of at most 4096"),
        (put("network", "name", value="x" * 300), "not text of at most 200"),
        (put("every", value=5), "4 checkpoints, where 1 to 3 belong"),
        (put("network", "name", value="os.system"), "unknown network 'os.system'"),
        (
            put("network", "options", value={"hidden": [10**9, 10**9]}),
            "expected|bytes|cannot be made",
        ),
        (put("network", "options", value={"hidden": [2] * 65}), "more than 64"),
        (put("network", "options", value={"hidden": {"a": 1}}), "an option of the network"),
        (put("network", "options", value={"hidden": 3}), "cannot be made"),
        (put("network", "n_classes", value=2**31 - 1), "expected|bytes|cannot be made"),
        (put("network", "input_shape", value=[5]), "another shape than the data's"),
        (put("key", "impl", value="mersenne"), "unknown key"),
        (put("key", "data", value=[1, 2**32]), "not an integer"),
        (put("matmul_precision", value="lowest"), "unknown matmul_precision"),
        (put("data", "examples", value=41), "uint64 digests .*, the manifest says .41"),
        (put("extra", value=1), "'extra' is not what"),
        (put("checkpoints", value=[]), "0 checkpoints, where 1 to 4 belong"),
    ],
)
def test_a_spoilt_manifest_is_refused_under_a_chain_made_right(
    copy, point_log, points, spoil, message
):
    log = copy(point_log)
    reseal(log, spoil)
    with pytest.raises(TrajectoryError, match=message):
        verify(log, points, tolerance=1e9)


def test_exchanged_files_break_the_chain(copy, point_log, points):
    log = copy(point_log)
    first, second = (log / f"state-{step:010d}.safetensors" for step in (4, 8))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    with pytest.raises(TrajectoryError, match="corrupt or was exchanged"):
        verify(log, points, tolerance=1e9)
    manifest = json.loads((log / MANIFEST).read_text())
    digests = manifest["checkpoints"]
    digests[1], digests[2] = digests[2], digests[1]
    (log / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(TrajectoryError, match="chain of the manifest does not end at its head"):
        verify(log, points, tolerance=1e9)


def mutate(generator, content):
    """Returns bytes that are not `content`."""
    changed = bytearray(content)
    kind = generator.randrange(5)
    place = generator.randrange(len(changed))
    if kind == 0:
        changed[place] ^= 1 << generator.randrange(8)
    elif kind == 1:
        del changed[place:]
    elif kind == 2:
        changed += generator.randbytes(generator.randint(1, 40))
    elif kind == 3:
        length = generator.randint(1, 16)
        changed[place : place + length] = generator.randbytes(length)
    else:
        del changed[place : place + generator.randint(1, 16)]
    return bytes(changed) if changed != content else mutate(generator, content)


@pytest.fixture
def mutable(tmp_path, point_log):
    log = tmp_path / "mutable"
    shutil.copytree(point_log, log)
    return log, {path.name: path.read_bytes() for path in point_log.iterdir()}


def outcome(log, points, mlp):
    """Returns the message of a refusal, or the report."""
    try:
        return verify(log, points, tolerance=0, model=mlp)
    except TrajectoryError as error:
        return str(error)


def test_thousands_of_mutations_are_refused_or_harmless(mutable, points, mlp):
    log, files = mutable
    generator = random.Random(0)
    head = read_trajectory(log).head
    harmless = 0
    for _ in range(2_500):
        name = generator.choice([MANIFEST] * 6 + [BATCHES, EXAMPLES, STATE, LAST])
        (log / name).write_bytes(mutate(generator, files[name]))
        result = outcome(log, points, mlp)
        if not isinstance(result, str):
            assert name == MANIFEST
            assert result.valid
            assert result.head == head
            harmless += 1
        (log / name).write_bytes(files[name])
    assert harmless < 150


def differing(one, other):
    """Returns the names of the arrays in which two safetensors files differ."""
    arrays, others = load(one), load(other)
    return {name for name in arrays if not np.array_equal(arrays[name], others[name])}


def test_mutations_under_a_chain_made_right_never_pass_wrongly(mutable, points, mlp):
    log, files = mutable
    generator = random.Random(1)
    verdicts = {"refused": 0, "invalid": 0, "valid": 0}
    for _ in range(200):
        name = generator.choice([BATCHES, STATE, LAST])
        content = files[name]
        place = generator.randrange(len(content))
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        (log / name).write_bytes(bytes(changed))
        (log / MANIFEST).write_bytes(files[MANIFEST])
        reseal(log)
        result = outcome(log, points, mlp)
        if isinstance(result, str):
            verdicts["refused"] += 1
        elif result.valid:
            # The metrics are there for a run to go on; a proof does not speak of them.
            assert name != BATCHES
            assert differing(content, bytes(changed)) <= {"metrics/loss", "metrics/accuracy"}
            verdicts["valid"] += 1
        else:
            verdicts["invalid"] += 1
        (log / name).write_bytes(content)
    assert verdicts["refused"] > 16
    assert verdicts["invalid"] > 13
