import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.costs import Stopwatch
from unlearnkit.io.files import atomic_path, sha256_of_array, write_json, write_text
from unlearnkit.io.provenance import provenance


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half a f")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power"):
        fail()
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_the_digest_covers_type_shape_and_bytes():
    array = np.arange(6, dtype=np.int32)
    changed = array.copy()
    changed[-1] += 1
    arrays = (array, array.reshape(2, 3), array.view(np.float32), changed)
    digests = {sha256_of_array(a) for a in arrays}
    assert len(digests) == 4
    assert sha256_of_array(np.asfortranarray(array.reshape(2, 3))) == sha256_of_array(
        array.reshape(2, 3)
    )


def test_compilation_is_counted_apart():
    import jax

    function = jax.jit(lambda x: jax.numpy.linalg.qr(x @ x.T)[0].sum())
    x = jax.numpy.ones((7, 9))
    with Stopwatch() as first:
        function(x).block_until_ready()
    with Stopwatch() as second:
        function(x).block_until_ready()
    assert first.compile_seconds > 0
    assert second.compile_seconds == 0
    assert second.seconds > 0


def test_provenance_names_what_a_reader_needs():
    found = provenance("no-such-package")
    assert {"commit", "date", "device", "dtype", "python", "versions", "unlearnkit"} <= set(found)
    assert "jax" in found["versions"]
    assert "no-such-package" not in found["versions"]


def test_the_hash_of_an_array_tells_types_that_numpy_does_not_know():
    ones = np.ones((2, 3), np.float32)
    kinds = (jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2, np.float16, np.uint16)
    hashes = [sha256_of_array(ones.astype(kind)) for kind in kinds]
    assert len(set(hashes)) == len(kinds)
    assert sha256_of_array(ones.astype(jnp.bfloat16)) == hashes[0]
    other = ones.astype(jnp.bfloat16)
    other[1, 2] = 2
    assert sha256_of_array(other) != hashes[0]
    # What logs hold of ordinary arrays stays as it was.
    expected = hashlib.sha256(b"<f4 (2, 3)" + ones.tobytes()).hexdigest()
    assert sha256_of_array(ones.T.copy().T) == sha256_of_array(ones) == expected
