import json
import shutil
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from unlearnkit import models
from unlearnkit.io.tensor_files import WeightsError
from unlearnkit.io.vocabularies import byte_level
from unlearnkit.validation import named_leaves

FOLDERS = Path(__file__).parent / "language"
PUBLISHED = load_file(FOLDERS / "logits.safetensors")
KEY = jax.random.key(0)
HEADS = {"gpt2": "tokens", "llama": "tokens", "gpt2_classes": "classes"}
SMOLLM2 = load_file(FOLDERS / "smollm2.safetensors")
TEXTS = (
    "The film was dull, and the 2 sequels were worse. The sentiment of the review is:",
    "In 1999 I paid $12.50 for it; naïve, isn't it?",
    "  two  spaces\n\n\tand ü 😀",
)


def load(name, **options):
    return models.load_pretrained(FOLDERS / name, head=HEADS[name], length=12, **options)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def copy(name, folder, **settings):
    """Copies a folder, with other settings in its config.json."""
    shutil.copytree(FOLDERS / name, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
    return folder


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_those_of_transformers_and_files_come_back_bit_by_bit(name, tmp_path):
    model, variables, tokenizer = load(name)
    assert tokenizer is None
    ids = jnp.asarray(PUBLISHED["ids"])
    found = np.asarray(jax.jit(model.apply)(variables, ids))
    there = PUBLISHED["ids"] != 0 if HEADS[name] == "tokens" else slice(None)
    np.testing.assert_allclose(found[there], PUBLISHED[name][there], atol=2e-5, rtol=0)
    models.save_pretrained(tmp_path / "new", model, variables, like=FOLDERS / name)
    assert files(tmp_path / "new") == files(FOLDERS / name)


@pytest.mark.parametrize("name", HEADS)
def test_what_changed_is_written_and_read_again_with_and_without_a_model_to_follow(name, tmp_path):
    model, variables, _ = load(name)
    moved = jax.tree.map(lambda w: w + 1, variables)
    for number, like in enumerate((FOLDERS / name, None)):
        models.save_pretrained(tmp_path / str(number), model, moved, like=like)
        again = models.load_pretrained(tmp_path / str(number), head=HEADS[name], length=12)
        assert again.model.tokens == model.tokens
        assert models.network_of(again.model) == models.network_of(model)
        for one, other in zip(*map(jax.tree.leaves, (moved, again.variables)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_types_buffers_and_names_without_a_prefix_are_kept(tmp_path):
    folder = copy("gpt2", tmp_path / "old")
    arrays = load_file(FOLDERS / "gpt2" / "model.safetensors")
    bare = {n.removeprefix("transformer."): a.astype(ml_dtypes.bfloat16) for n, a in arrays.items()}
    bare["h.0.attn.bias"] = np.tril(np.ones((1, 1, 16, 16), np.float32))
    save_file(bare, folder / "model.safetensors", {"format": "pt"})
    model, variables, _ = models.load_pretrained(folder, head="answer", length=12)
    assert variables.params["wte"]["weight"].dtype == jnp.float32
    models.save_pretrained(tmp_path / "new", model, variables, like=folder)
    assert files(tmp_path / "new") == files(folder)
    variables.params["ln_f"]["bias"] += 1
    models.save_pretrained(tmp_path / "moved", model, variables, like=folder)
    written = load_file(tmp_path / "moved" / "model.safetensors")
    changed = {n for n in bare if written[n].tobytes() != np.ascontiguousarray(bare[n]).tobytes()}
    assert (changed, written["ln_f.bias"].dtype) == ({"ln_f.bias"}, ml_dtypes.bfloat16)


def test_the_start_of_such_a_network_is_its_weights_and_a_fresh_head_is_drawn():
    model, variables, _ = models.load_pretrained(
        FOLDERS / "llama", head="classes", n_classes=3, length=12, key=KEY
    )
    other = jax.random.key(5)
    for fresh in (model.init(other), jax.jit(model.init)(other)):
        same = {
            name
            for name, leaf in named_leaves(variables).items()
            if np.array_equal(leaf, named_leaves(fresh)[name])
        }
        assert set(named_leaves(variables)) - same == {"params/classifier/kernel"}
    seeds = jax.vmap(model.init)(jax.random.split(other, 2))
    assert len(np.unique(seeds.params["classifier"]["kernel"], axis=0)) == 2
    np.testing.assert_array_equal(
        seeds.params["norm"]["weight"][1], variables.params["norm"]["weight"]
    )


def test_a_folder_with_a_tokenizer_fills_rows_as_the_network_expects(tmp_path):
    folder = copy("gpt2", tmp_path / "one", vocab_size=97)
    tokenizer = byte_level(
        {"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, [("a", "b")], special=["<|endoftext|>"]
    )
    models.write_tokenizer(folder / "tokenizer.json", tokenizer)
    model, variables, found = models.load_pretrained(folder, length=12, pad_id=3)
    assert (found.padding["pad_id"], model.tokens.pad) == (3, 3)
    assert found.encode("ab").ids == [2]
    models.save_pretrained(tmp_path / "two", model, variables, like=folder)
    assert files(tmp_path / "two") == files(folder)
    many = {chr(0x100 + i): i for i in range(98)}
    models.write_tokenizer(folder / "tokenizer.json", byte_level(many, [], special=[]))
    with pytest.raises(ValueError, match="has ids up to 97 .* the embedding has 97 rows"):
        models.load_pretrained(folder, length=12)


def test_what_cannot_be_read_is_refused_by_name(tmp_path):
    def refused(message, folder, error=ValueError, **options):
        with pytest.raises(error, match=message):
            models.load_pretrained(folder, length=12, **options)

    refused("'bert'; read are gpt2 and llama", copy("gpt2", tmp_path / "a", model_type="bert"))
    refused(
        "hidden_act='gelu', which is not computed here; hidden_act='silu' is",
        copy("llama", tmp_path / "b", hidden_act="gelu"),
    )
    scaled = {"rope_type": "llama3", "rope_theta": 1e4}
    refused("of the kind 'llama3'", copy("llama", tmp_path / "c", rope_parameters=scaled))
    refused(
        r"transformer.wte.weight is float32 \[97, 32\], but .* of shape \[90, 32\]",
        copy("gpt2", tmp_path / "d", vocab_size=90),
        WeightsError,
    )
    refused(
        "lacks transformer.h.2.ln_1.weight", copy("gpt2", tmp_path / "e", n_layer=3), WeightsError
    )
    refused(
        "holds transformer.h.1.attn.c_attn.bias, which .* no place for",
        copy("gpt2", tmp_path / "f", n_layer=1),
        WeightsError,
    )
    folder = copy("gpt2", tmp_path / "i")
    for content, message in (("{", "is not readable as JSON .*copy it"), ("[]", "holds a list")):
        (folder / "config.json").write_text(content)
        refused(f"config.json {message}", folder, WeightsError)
    folder = copy("llama", tmp_path / "j")
    (folder / "model.safetensors.index.json").write_text("{}")
    refused("index.json has no weight_map, which says in which file", folder, WeightsError)
    folder = copy("llama", tmp_path / "g")
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused("lists model-00002-of-00002.safetensors, which is not there", folder, FileNotFoundError)
    settings = (
        ("gpt2", {"vocab_size": 0}, "says vocab_size=0, where a whole number >= 1 belongs"),
        ("gpt2", {"n_embd": "32"}, "says n_embd='32', where a whole number"),
        ("gpt2", {"n_head": 0}, "says n_head=0"),
        ("gpt2", {"n_layer": None}, "says n_layer=None"),
        ("gpt2", {"layer_norm_epsilon": -1.0}, "says layer_norm_epsilon=-1.0, where a number > 0"),
        ("gpt2", {"tie_word_embeddings": "no"}, "tie_word_embeddings='no', where true or false"),
        ("llama", {"num_attention_heads": 2.5}, "says num_attention_heads=2.5"),
        ("llama", {"rope_parameters": [1]}, r"says rope_parameters=\[1\], where a table belongs"),
        ("llama", {"rope_parameters": {"rope_theta": "x"}}, "rope_theta='x', where a number > 0"),
    )
    for number, (name, changed, message) in enumerate(settings):
        refused(f"config.json.* {message}", copy(name, tmp_path / f"s{number}", **changed))
    folder = copy("gpt2", tmp_path / "k")
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_embd": 32, "n_head": 2}')
    refused("config.json does not say 'vocab_size'", folder)
    for number, name in enumerate((3, "../other.safetensors")):
        folder = copy("llama", tmp_path / f"l{number}")
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"norm.weight": name}})
        )
        refused("index.json has no weight_map, which says in which file", folder, WeightsError)
    refused("no folder at .*'smollm2-135m'", tmp_path / "none", FileNotFoundError)
    refused("has no head of classes; give key=", FOLDERS / "gpt2", head="classes", n_classes=2)
    model, variables, _ = load("gpt2")
    variables.params["ln_f"].pop("bias")
    with pytest.raises(ValueError, match="ln_f/bias is missing, or not of shape"):
        models.save_pretrained(tmp_path / "h", model, variables)
    other = models.create("logistic", input_shape=(4,), n_classes=2)
    with pytest.raises(ValueError, match="a language network of models.transformer is needed"):
        models.save_pretrained(tmp_path / "i", other, other.init(KEY))


def test_arrays_and_tokenizers_that_cannot_be_meant_are_refused(tmp_path):
    def refused(message, name, arrays, error=WeightsError, **files):
        folder = copy("gpt2", tmp_path / name)
        held = load_file(folder / "model.safetensors") | arrays
        save_file(held, folder / "model.safetensors")
        for file, content in files.items():
            (folder / file.replace("_", ".")).write_text(content)
        with pytest.raises(error, match=message):
            models.load_pretrained(folder, length=12)

    embedding = load_file(FOLDERS / "gpt2" / "model.safetensors")["transformer.wte.weight"]
    broken = embedding.copy()
    broken[3, 1] = np.nan
    refused("transformer.wte.weight holds NaN", "a", {"transformer.wte.weight": broken})
    refused("wte.weight is int32", "b", {"transformer.wte.weight": embedding.astype(np.int32)})
    refused(
        "lm_head.weight, which is not transformer.wte.weight.*tie_word_embeddings to false",
        "c", {"lm_head.weight": embedding + 1},
    )  # fmt: skip
    for number, merges in enumerate(("a b c", "a z")):
        refused(
            "merges.txt does not hold two tokens of .*vocab.json a line", f"d{number}", {},
            vocab_json='{"a": 0, "b": 1}', merges_txt=merges,
        )  # fmt: skip
    refused("has no tokens; copy its file again", "e", {}, ValueError, vocab_json="{}",
            merges_txt="")  # fmt: skip
    refused("tokenizer.json is not readable as a tokenizer", "f", {}, ValueError,
            tokenizer_json="{")  # fmt: skip
    folder = copy("gpt2", tmp_path / "g")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(WeightsError, match="truncated, damaged or of"):
        models.load_pretrained(folder, length=12)


def gguf_of(path, architecture="llama", kind=0, name="token_embd.weight"):
    """Writes a GGUF file of one tensor of a kind, which need not exist."""

    def text(said):
        return struct.pack("<Q", len(said)) + said.encode()

    content = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    content += text("general.architecture") + struct.pack("<I", 8) + text(architecture)
    content += text(name) + struct.pack("<IQQIQ", 2, 256, 1, kind, 0)
    content += bytes(-len(content) % 32) + bytes(4096)
    path.write_bytes(content)
    return path


def test_gguf_files_of_other_kinds_are_refused_by_name(tmp_path, monkeypatch):
    path = tmp_path / "net.gguf"
    with pytest.raises(WeightsError, match="architecture 'bert'; of GGUF, llama is read"):
        models.load_pretrained(gguf_of(path, "bert"))
    path.write_bytes(b"GGUFxx")
    with pytest.raises(WeightsError, match="not readable as GGUF"):
        models.load_pretrained(path)
    decoder = models.SMOLLM2_135M
    monkeypatch.setattr("unlearnkit.models.gguf_files._decoder", lambda *_: decoder)
    q8_k = 15  # known to the format, but not dequantised
    with pytest.raises(WeightsError, match=r"token_embd.weight is quantised as Q8_K, which is not"):
        models.load_pretrained(gguf_of(path, kind=q8_k))
    with pytest.raises(WeightsError, match="holds blk.0.odd.weight, which a plain Llama"):
        models.load_pretrained(gguf_of(path, name="blk.0.odd.weight"))


def test_smollm2_answers_as_transformers_does_with_the_same_dequantised_weights():
    model, variables, tokenizer = models.load_pretrained("smollm2-135m", head="tokens", length=24)
    for number, text in enumerate(TEXTS):
        assert tokenizer.encode(text).ids == SMOLLM2[f"text{number}"].tolist()
    ids = SMOLLM2["text0"]
    x = np.full((1, 24), model.tokens.pad, np.int32)
    x[0, : len(ids)] = ids
    logits = np.asarray(jax.jit(model.apply)(variables, jnp.asarray(x)))[0, : len(ids)]
    np.testing.assert_allclose(logits[-4:, ::16], SMOLLM2["logits"], atol=1e-4, rtol=0)
    np.testing.assert_array_equal(logits.argmax(-1), SMOLLM2["largest"])
