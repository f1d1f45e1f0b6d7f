from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from other_process import output, start

from unlearnkit import models
from unlearnkit.base import Dataset, Task, Tokens, Variables
from unlearnkit.training import Recipe
from unlearnkit.training.step import forward_train
from unlearnkit.unlearning import ExactLastLayers
from unlearnkit.validation import check_compatible, check_embedding, check_task, named_leaves

KEY = jax.random.key(0)
LENGTH, VOCABULARY, PAD = 8, 23, 0
SIZES = {"gpt2_tiny": {}, "llama_tiny": {"key_value_heads": 1}}
ROWS = np.random.default_rng(0).integers(1, VOCABULARY, (3, LENGTH)).astype(np.int32)
ENDS = (LENGTH, 5, 1)
X = jnp.asarray(np.where(np.arange(LENGTH) < np.array(ENDS)[:, None], ROWS, PAD))


def make(name, head="tokens", length=LENGTH, **options):
    n_classes = 3 if head == "classes" else VOCABULARY
    settings = {"width": 16, "heads": 2, "vocabulary": VOCABULARY, **SIZES[name], **options}
    return models.create(name, input_shape=(length,), n_classes=n_classes, head=head, **settings)


def draw(model, seed=1):
    """Returns weights of which no norm is 1 and no bias 0."""
    leaves, structure = jax.tree.flatten(model.init(KEY))
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [w + 0.2 * jax.random.normal(k, w.shape) for w, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


@pytest.fixture(scope="module", params=SIZES)
def case(request):
    """A tiny network that gives logits of every next token, its weights, and its logits of X."""
    model = make(request.param)
    variables = draw(model)
    return request.param, model, variables, np.asarray(jax.jit(model.apply)(variables, X))


def llama_by_hand(params, row, base=10_000.0):
    """Returns float64 logits of one row without padding, by a loop over heads and places."""

    def norm(weight, h):
        return h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-5) * weight["weight"]

    params = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    h = params["embed_tokens"]["weight"][row]
    for number in range(2):
        block = params["layers"][str(number)]
        x = norm(block["input_layernorm"], h)
        q, k, v = (x @ block["self_attn"][f"{name}_proj"]["weight"].T for name in "qkv")
        mixed = np.zeros((len(row), 16))
        for head in range(2):  # of width 8, which share their keys and values
            turned = []
            for part in (q[:, 8 * head : 8 * head + 8], k):
                pairs = part[:, :4] + 1j * part[:, 4:]
                angles = np.arange(len(row))[:, None] * base ** (-np.arange(4) / 4)
                turned.append(pairs * np.exp(1j * angles))
            scores = (turned[0] @ turned[1].conj().T).real / np.sqrt(8)
            for i in range(len(row)):
                weights = np.exp(scores[i, : i + 1] - scores[i, : i + 1].max())
                mixed[i, 8 * head : 8 * head + 8] = weights / weights.sum() @ v[: i + 1]
        h = h + mixed @ block["self_attn"]["o_proj"]["weight"].T
        x = norm(block["post_attention_layernorm"], h)
        gate, up = (x @ block["mlp"][f"{name}_proj"]["weight"].T for name in ("gate", "up"))
        h = h + (gate / (1 + np.exp(-gate)) * up) @ block["mlp"]["down_proj"]["weight"].T
    return norm(params["norm"], h) @ params["embed_tokens"]["weight"].T


def test_attention_with_rotary_positions_shared_keys_and_padding_is_the_formula(case):
    name, _, variables, logits = case
    if name == "gpt2_tiny":  # which `test_pretrained` compares with that of transformers
        return
    for row, end, found in zip(np.asarray(X), ENDS, logits, strict=True):
        expected = llama_by_hand(variables.params, row[:end])
        np.testing.assert_allclose(found[:end], expected, rtol=1e-4, atol=1e-5)


def test_later_tokens_change_no_earlier_logits(case):
    _, model, variables, logits = case
    other = jnp.asarray(ROWS).at[0, 4:].set((ROWS[0, 4:] + 5) % (VOCABULARY - 1) + 1)
    changed = np.asarray(jax.jit(model.apply)(variables, other))
    np.testing.assert_array_equal(changed[0, :4], logits[0, :4])
    assert (abs(changed[0, 4:] - logits[0, 4:]).max(-1) > 1e-3).all()


def test_heads_read_the_last_token_and_padding_changes_nothing(case):
    name, _, variables, logits = case
    last = logits[np.arange(3), np.array(ENDS) - 1]
    answer = make(name, "answer", length=LENGTH + 3)
    longer = jnp.pad(X, ((0, 0), (0, 3)), constant_values=PAD)
    if name == "gpt2_tiny":  # as many learned positions as a row is long
        wpe = jnp.pad(variables.params["wpe"]["weight"], ((0, 3), (0, 0)))
        variables = Variables(variables.params | {"wpe": {"weight": wpe}})
    np.testing.assert_allclose(answer.apply(variables, longer), last, rtol=1e-5, atol=1e-5)


def test_vectors_of_tokens_give_the_same_logits_and_those_of_padding_no_gradient(case):
    _, model, variables, logits = case
    vectors = model.embed(variables, X)
    assert vectors.shape == (3, LENGTH, 16)
    there = np.asarray(X != PAD)

    def total(vectors):
        found = model.apply_embedded(variables, vectors, X)
        return jnp.where(there[..., None], found**2, 0).sum(), found

    (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(vectors)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(abs(gradient).max(-1) > 0, there)


def test_a_loop_and_rematerialised_blocks_compute_the_same(case):
    name, *_ = case
    gradients, programs = [], []
    for options in ({"scan": False}, {"scan": True, "rematerialise": True}):
        model = make(name, **options)
        variables = draw(model)

        def loss(params, model=model):
            return jnp.mean(model.apply(Variables(params), X)[:, 0] ** 2)

        programs.append(str(jax.make_jaxpr(jax.grad(loss))(variables.params)))
        gradients.append(jax.jit(jax.grad(loss))(variables.params))
    assert ["scan" in program for program in programs] == [False, True]
    assert ["remat" in program for program in programs] == [False, True]
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_near_and_gives_float32_logits(case):
    name, _, variables, logits = case
    logits = logits[np.arange(3), np.array(ENDS) - 1]
    recipe, model = Recipe(compute_dtype="bfloat16"), make(name, "answer")
    found, _ = jax.jit(forward_train, static_argnums=(0, 1))(model, recipe, variables, X, KEY)
    assert found.dtype == jnp.float32
    error = np.linalg.norm(found - logits) / np.linalg.norm(logits)
    assert 1e-4 < error < 0.05, name


def test_dropout_is_of_training_alone_and_drawn_from_its_key(case):
    name, _, variables, logits = case
    model = make(name, dropout=0.3)
    train = jax.jit(model.apply_train)
    one, again, other = (train(variables, X, jax.random.key(s))[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert abs(one - other)[0].max() > 1e-3
    np.testing.assert_allclose(model.apply(variables, X), logits, rtol=1e-5, atol=1e-5)


def text_task(model, n=4):
    x = jnp.tile(X[:2], (2, 1))[:n]
    part = Dataset(x, jnp.arange(n) % 3, model.tokens)
    return Task(part, part, part, part)


@pytest.mark.parametrize("name", SIZES)
def test_layers_are_embedding_blocks_and_a_head_that_is_not_tied(name):
    model = make(name, "answer")
    start, k = draw(model), len(model.layers) - 1
    assert k == 2  # the blocks, of which the last has the last norm
    reset = ExactLastLayers(epochs=0, batch_size=2, k=k)(KEY, model, start, text_task(model))
    old, new = named_leaves(start.params), named_leaves(reset.variables.params)
    kept = {leaf for leaf in old if np.array_equal(old[leaf], new[leaf])}
    assert kept == {leaf for leaf in old if leaf.split("/")[0] in ("wte", "wpe", "embed_tokens")}
    if name == "llama_tiny":
        untied = make(name, "answer", tied=False)
        assert untied.layers[-1] == (("lm_head",),)
        assert len(untied.layers) == k + 2


def test_published_sizes():
    counted = {"gpt2": 124_439_808, "gpt2_medium": 354_823_168, "smollm2_135m": 134_515_008}
    for name, count in counted.items():
        vocabulary = 49152 if name == "smollm2_135m" else 50257
        model = models.create(name, input_shape=(4,), n_classes=vocabulary, head="answer")
        shapes = jax.eval_shape(model.init, KEY)
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_weights_shared_over_eight_devices_compute_the_same(tmp_path):
    script = Path(__file__).with_name("eight_devices.py")
    assert "the same on 8 devices" in output(start(script, JAX_NUM_CPU_DEVICES="8"))


def test_what_does_not_fit_is_refused(unchecked_types):
    model = make("gpt2_tiny", "classes")
    good = text_task(model)
    cases = (
        (Tokens(24, PAD), X, r"a vocabulary of 24 tokens, but the model's embedding has 23 rows"),
        (Tokens(23, 5), X, r"filled with the id 5, but the model takes 0 .* pad_id=5"),
        (model.tokens, X.at[1].set(PAD), r"row 1 of dataset is padding only.*1 of 3 rows"),
    )
    for tokens, x, message in cases:
        with pytest.raises(ValueError, match=message):
            check_compatible(Dataset(x, jnp.arange(3), tokens), model)
    check_task(good, model)
    images = models.create("logistic", input_shape=(4,), n_classes=2)
    with pytest.raises(ValueError, match="GUS moves the vectors of tokens.*give it embed"):
        check_embedding(images, method="GUS")
    check_embedding(model, method="GUS")
    with pytest.raises(ValueError, match="rows of 1025 tokens .* takes 1 … 1024; cut the texts"):
        models.create("gpt2", input_shape=(1025,), n_classes=2)
    with pytest.raises(ValueError, match="gpt2 takes rows of token ids .*shape \\(28, 28, 1\\)"):
        models.create("gpt2", input_shape=(28, 28, 1), n_classes=2)
    with pytest.raises(ValueError, match="vocabulary, 23, got n_classes=7; set vocabulary=7"):
        models.create(
            "gpt2_tiny", input_shape=(4,), n_classes=7, head="answer", vocabulary=VOCABULARY
        )
    with pytest.raises(ValueError, match="width=10, heads=4"):
        models.create("gpt2_tiny", input_shape=(4,), n_classes=2, width=10)
    with pytest.raises(ValueError, match="heads must be a multiple of key_value_heads.*4 and 3"):
        models.create("llama_tiny", input_shape=(4,), n_classes=2, key_value_heads=3)
    with pytest.raises(ValueError, match="head must be one of classes, answer, tokens, got 'mlm'"):
        make("gpt2_tiny", "mlm", vocabulary=VOCABULARY)
    with pytest.raises(ValueError, match="pad_id must be in 0 … 22, got 23"):
        make("gpt2_tiny", pad_id=23)
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1"):
        make("gpt2_tiny", dropout=1.0)
