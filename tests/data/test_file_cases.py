"""Files of users' own as they come: each loads, or its message names the option that helps.

docs/data.md shows what each case answers; run as a script, this file writes the page anew.
"""

import contextlib
import functools
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_cases import CASES as DATA
from data_cases import X, Y
from example_cases import CASES as EXAMPLES
from list_cases import CASES as LISTS
from list_cases import WANTED, N

from unlearnkit.base import Dataset
from unlearnkit.data import FileForget, Reading, from_examples, load
from unlearnkit.data.indices import check_forget
from unlearnkit.validation import InputWarning

KEY = jax.random.key(0)
TRAIN = Dataset(jnp.arange(N, dtype=jnp.float32)[:, None], jnp.arange(N) % 4)
PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def answer(case, folder, take):
    """Returns what a case loads, with its option if it asks for one; None where it is refused."""
    made = case.write(folder)
    told = contextlib.nullcontext()
    if case.warns:
        told = pytest.warns(InputWarning, match=case.warns)
    with told:
        if not case.refused:
            return take(made, **case.option)
        with pytest.raises((ValueError, TypeError, FileNotFoundError), match=case.refused):
            take(made)
        return take(made, **case.option) if case.option else None


def forgotten(path, *, ids=None, column=None):
    ids = ids if ids is None else path.parent / ids
    return check_forget(FileForget(path, column, ids)(KEY, TRAIN), N).tolist()


@pytest.mark.parametrize("case", LISTS, ids=lambda case: case.what)
def test_lists(case, tmp_path):
    found = answer(case, tmp_path, forgotten)
    assert found in (None, case.finds or WANTED)


def both(path, *, normalisation="unit", **said):
    reading = Reading(**said)
    return [
        load(path, split=split, normalisation=normalisation, reading=reading)
        for split in ("train", "test")
    ]


def check(dataset, finds):
    if "shape" in finds:
        assert dataset.x.shape[1:] == finds["shape"]
        return
    x = np.asarray(dataset.normalisation.invert(dataset.x))
    np.testing.assert_allclose(x, finds["x"], atol=finds.get("tolerance", 2e-5), rtol=1e-5)
    np.testing.assert_array_equal(dataset.y, finds["y"])


@pytest.mark.parametrize("case", DATA, ids=lambda case: case.what)
def test_data(case, tmp_path):
    finds = {"x": X / 255, "y": Y, "sizes": (6, 3)} | (case.finds or {})
    found = answer(case, tmp_path, functools.partial(both, **finds.get("said", {})))
    if found is None:
        return
    assert tuple(split.size for split in found) == finds["sizes"]
    if "shape" in finds or finds["sizes"] == (6, 3):
        check(found[0], finds)
        check(found[1], finds | {"x": finds["x"][:3], "y": finds["y"][:3]})


@pytest.mark.parametrize("case", EXAMPLES, ids=lambda case: case.what)
def test_examples(case, tmp_path):
    def take(examples, *, x=None, y=None, **said):
        return from_examples(examples, x=x, y=y, reading=Reading(**said))

    found = answer(case, tmp_path, take)
    if found is not None:
        check(found, {"x": X / 255, "y": Y} | (case.finds or {}))


def kind(case):
    """Returns what the page says that a case does."""
    if not case.refused:
        return "loads"
    if case.option:
        return "asks"
    return "converts" if case.sound else "wrong"


def render():
    """Returns the page."""
    cases = [*LISTS, *DATA, *EXAMPLES]
    counts = Counter(map(kind, cases))
    sound = sum(case.sound for case in cases)
    answered = counts["loads"] + counts["asks"]
    lines = [
        "# Files as they come, and what each does",
        "",
        "Written by `python tests/data/test_file_cases.py` from the cases that the tests run; "
        "[Your own data](your_own.md) explains the options.",
        "",
        f"Of {len(cases)} cases {sound} hold something to load: {counts['loads']} load as they "
        f"are, {counts['asks']} with the one option that their message names, together "
        f"{100 * answered / sound:.0f} %; {counts['converts']} are of formats that are not read, "
        f"and their message says how to convert them. {counts['wrong']} hold nothing that could "
        "be loaded, and their message says what is wrong.",
        "",
    ]
    for title, group in (
        ("Lists of what to forget", LISTS),
        ("Data in files and folders", DATA),
        ("Examples in Python", EXAMPLES),
    ):
        lines += [f"## {title}", "", "| what is given | what happens |", "| --- | --- |"]
        lines += [f"| {case.what.replace('|', '&#124;')} | {told(case)} |" for case in group]
        lines += [""]
    return "\n".join(lines)


def told(case):
    option = ", ".join(f"{name}={value!r}" for name, value in case.option.items())
    if kind(case) == "asks":
        return f"asks, and loads with `{option}`"
    if kind(case) == "loads":
        also = f" with `{option}`" if option else ""
        return f"loads{also}" + (", and says what it did" if case.warns else "")
    return "is not read; says how to convert it" if case.sound else "refused: nothing to load"


def test_the_page_shows_the_cases_and_few_files_need_more_than_one_option():
    assert PAGE.read_text(encoding="utf-8") == render(), "run this file as a script"
    cases = [case for case in (*LISTS, *DATA, *EXAMPLES) if case.sound]
    assert len(cases) >= 150
    answered = sum(kind(case) in ("loads", "asks") for case in cases)
    assert answered >= 0.9 * len(cases)
    assert len({(case.what, str(case.write)) for case in cases}) == len(cases)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
