"""Features and layers of a network against those of the original."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.auditing import Case, Representation, Subject, judge, layer_moves, linear_cka
from unlearnkit.base import Cost, Unlearned, UnlearnInfo, Variables
from unlearnkit.models import create
from unlearnkit.training import Recipe

RNG = np.random.default_rng(0)


def test_cka_is_that_of_covariances_and_knows_no_rotation_scale_or_shift():
    one, other = RNG.normal(size=(30, 4)), RNG.normal(size=(30, 6))
    a, b = (h - h.mean(0) for h in (one, other))
    expected = np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert linear_cka(one, other) == pytest.approx(expected)
    assert 0 < expected < 0.5
    rotation = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    assert linear_cka(one, 3 * one @ rotation + 5) == pytest.approx(1)
    flat = np.ones((30, 4))
    assert (linear_cka(flat, 2 * flat), linear_cka(one, flat)) == (1, 0)


@pytest.fixture(scope="module")
def case(task):
    model = create("mlp", input_shape=(6,), n_classes=3, hidden=(8,))
    original, other = (jax.jit(model.init)(jax.random.key(seed)) for seed in (0, 1))
    reference = Unlearned(other, UnlearnInfo({}, Cost(1.0, 0.0)))
    return Case(jax.random.key(0), model, Recipe(), task, original, reference)


def test_layers_move_by_their_share_of_the_norm(case):
    params = case.original.params
    moved = {**params, "classifier": jax.tree.map(lambda w: 1.5 * w, params["classifier"])}
    assert layer_moves(case.model, moved, params) == pytest.approx([0, 0.5])
    zeros = jax.tree.map(jnp.zeros_like, params)
    norm = np.sqrt(sum(float(jnp.sum(w**2)) for w in jax.tree.leaves(params["fc1"])))
    assert layer_moves(case.model, params, zeros)[0] == pytest.approx(norm)


def test_original_and_reference_are_like_themselves(case):
    own = judge(Representation(examples=20), case, Subject(case.original)).metrics
    retrained = Subject(case.reference.variables, is_reference=True)
    there = judge(Representation(examples=20), case, retrained).metrics
    for name in ("retain", "forget", "test"):
        assert own[f"cka_{name}"] == pytest.approx(1)
        assert there[f"cka_retrained_{name}"] == pytest.approx(1)
        assert there[f"cka_{name}"] == pytest.approx(own[f"cka_retrained_{name}"])
        assert there[f"cka_{name}"] < 0.95
    assert (own["layer_moved_first"], own["layer_moved_last"]) == (0, 0)
    assert there["layer_moved_first"] > 0.5


def test_the_plane_is_that_of_what_may_be_kept(case):
    """No forgotten example has a part in it: their features may be anything."""
    audit = Representation(examples=20)
    one = judge(audit, case, Subject(case.original)).curves
    other = dataclasses.replace(
        case,
        task=case.task._replace(forget=case.task.forget._replace(x=9 * case.task.forget.x)),
        scratch=type(case.scratch)(),
    )
    two = judge(audit, other, Subject(case.original)).curves
    np.testing.assert_allclose(one["plane_retain"], two["plane_retain"])
    assert not np.allclose(one["plane_forget"], two["plane_forget"])
    together = np.concatenate([one["plane_retain"], one["plane_test"]])
    np.testing.assert_allclose(together.mean(0), 0, atol=1e-6)
    assert np.cov(together.T)[0, 1] == pytest.approx(0, abs=1e-6)
    assert together.var(0)[0] > together.var(0)[1]
    assert one["plane_class_forget"].tolist() == case.task.forget.y[:20].tolist()


def test_few_examples_and_weights_of_others_are_refused(case):
    with pytest.raises(ValueError, match="examples must be >= 3, got 2"):
        Representation(examples=2)
    with pytest.raises(ValueError, match="variables do not fit the model"):
        judge(Representation(), case, Subject(Variables({"other": jnp.zeros(3)})))
