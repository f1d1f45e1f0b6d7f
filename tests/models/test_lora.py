import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit import models
from unlearnkit.base import Dataset, Task, Variables
from unlearnkit.unlearning import GradientAscent
from unlearnkit.validation import named_leaves

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).integers(1, 23, (6, 5)), jnp.int32)


def make(name, head="answer", **options):
    n_classes = 23 if head == "answer" else 3
    settings = {"width": 16, "heads": 2, "vocabulary": 23, **options}
    return models.create(name, input_shape=(5,), n_classes=n_classes, head=head, **settings)


@pytest.fixture(scope="module", params=["gpt2_tiny", "llama_tiny"])
def case(request):
    """A network, its weights, and both with adapters that were moved away from 0."""
    model = make(request.param)
    variables = model.init(KEY)
    adapted, start = models.lora(model, variables, key=jax.random.key(1), rank=2)
    moved = jax.tree.map(lambda w: w + 0.3, start.params)
    return model, variables, adapted, start, Variables(moved, start.state)


def test_a_fresh_adapter_changes_nothing_and_a_merged_one_computes_the_same(case):
    model, variables, adapted, start, moved = case
    logits = np.asarray(model.apply(variables, X))
    np.testing.assert_array_equal(adapted.apply(start, X), logits)
    found = np.asarray(adapted.apply(moved, X))
    assert abs(found - logits).max() > 1e-3
    plain, merged = models.merge_lora(adapted, moved)
    assert plain == model
    np.testing.assert_allclose(plain.apply(merged, X), found, rtol=1e-4, atol=1e-5)
    vectors = adapted.embed(moved, X)
    again = adapted.apply_embedded(moved, vectors, X)
    np.testing.assert_allclose(again, found, rtol=1e-5, atol=1e-6)


def test_unlearning_moves_the_adapters_alone_and_the_base_is_not_copied(case):
    model, variables, adapted, start, _ = case
    base = start.state["base"]
    for one, other in zip(*map(jax.tree.leaves, (base, variables.params)), strict=True):
        assert one is other
    names = {name.rpartition("/")[2] for name in named_leaves(start.params)}
    assert names == {"lora_a", "lora_b"}
    assert len(adapted.layers) == 2  # blocks; nothing of the embedding
    part = Dataset(X, jnp.arange(6), model.tokens)
    method = GradientAscent(epochs=1, batch_size=3, learning_rate=0.1)
    gone = method(KEY, adapted, start, Task(part, part, part, part)).variables
    for one, other in zip(*map(jax.tree.leaves, (gone.state, start.state)), strict=True):
        np.testing.assert_array_equal(one, other)
    moved = [
        not np.array_equal(leaf, named_leaves(start.params)[name])
        for name, leaf in named_leaves(gone.params).items()
        if name.endswith("lora_b")
    ]
    assert all(moved)


def test_a_head_of_classes_is_trained_whole_and_a_start_draws_it_anew():
    model = make("gpt2_tiny", "classes")
    variables = model.init(KEY)
    adapted, start = models.lora(
        model, variables, key=jax.random.key(1), rank=4, targets=("c_attn", "c_fc")
    )
    head = start.params["classifier"]["kernel"]
    np.testing.assert_array_equal(head, variables.params["classifier"]["kernel"])
    assert "classifier" not in start.state["base"]
    assert adapted.layers[-1] == (("classifier",),)
    assert start.params["h"]["1"]["mlp"]["c_fc"]["lora_b"].shape == (4, 64)
    other = jax.jit(adapted.init)(jax.random.key(3))
    assert not np.array_equal(other.params["classifier"]["kernel"], head)
    for one, of in zip(*map(jax.tree.leaves, (other.state, start.state)), strict=True):
        np.testing.assert_array_equal(one, of)


def test_what_has_no_place_for_adapters_is_refused(case):
    model, variables, adapted, start, _ = case
    with pytest.raises(ValueError, match=r"rank must be in 1 … \d+, .*got 99"):
        models.lora(model, variables, key=KEY, rank=99)
    with pytest.raises(ValueError, match="targets must name one of the matrices of a block: "):
        models.lora(model, variables, key=KEY, targets=())
    other = make("gpt2_tiny", width=8)
    with pytest.raises(ValueError, match="variables do not fit the model"):
        models.lora(model, other.init(KEY), key=KEY)
    with pytest.raises(ValueError, match="no matrix of a block is called 'conv'; there are "):
        models.lora(model, variables, key=KEY, targets=("conv",))
    with pytest.raises(ValueError, match="has adapters already; merge them"):
        models.lora(adapted, start, key=KEY)
    with pytest.raises(ValueError, match="has no adapters; models.lora gives it some"):
        models.merge_lora(model, variables)
    other = models.create("logistic", input_shape=(4,), n_classes=2)
    with pytest.raises(ValueError, match="a language network of models.transformer is needed"):
        models.lora(other, other.init(KEY), key=KEY)
