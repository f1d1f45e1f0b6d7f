"""neural-tangents is given the names that it needs, and they are gone afterwards."""

import sys

import jax
import jax.extend
import pytest
from jax.interpreters import ad

from unlearnkit import kernels

PACKAGE = """
from jax.core import DShapedArray, Jaxpr, JaxprEqn, Literal, Primitive, ShapedArray, Value, Var
from jax.extend import linear_util
from jax.interpreters.ad import UndefinedPrimal, Zero, add_jaxvals_p, zeros_like_p
from jax.util import safe_map, safe_zip
from . import experimental
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that asks for what neural-tangents 0.6.5 asks for; the real one: `.ci/peers`."""
    folder = tmp_path / "neural_tangents"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("neural_tangents", None)


def test_names_are_there_inside_and_gone_outside(installed):
    places = {jax.core: "Jaxpr", ad: "source_info_util", jax.extend: "linear_util"}
    before = {module: set(vars(module)) for module in places}
    modules = {"jax.util", "neural_tangents.experimental"}
    assert not modules & set(sys.modules)
    for _ in range(2):
        with kernels.neural_tangents() as nt:
            assert nt.safe_map is not None
            assert jax.core.Literal is nt.Literal
            assert modules <= set(sys.modules)
        assert not modules & set(sys.modules)
        assert {module: set(vars(module)) for module in places} == before
    with pytest.raises(RuntimeError), kernels.neural_tangents():
        raise RuntimeError
    assert not hasattr(jax.core, "Jaxpr")


def test_without_the_package():
    with pytest.raises(ImportError, match="pip install --no-deps neural-tangents"):
        kernels.neural_tangents().__enter__()
