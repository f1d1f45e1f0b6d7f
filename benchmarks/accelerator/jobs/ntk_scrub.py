"""Golatkar et al. 2020b: the NTK scrub of all of CIFAR-10, every image and every output."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from benchmarks import ntk_scrub as benchmark
from benchmarks.accelerator.context import Context
from benchmarks.frame import Row
from unlearnkit.base import Model
from unlearnkit.costs import largest_batch
from unlearnkit.kernels import Precision
from unlearnkit.unlearning import NtkScrub

GIGABYTES = 20.0
"""That the scrub may take."""
SECONDS = 180.0
CASES: tuple[tuple[str, Precision], ...] = (
    ("allcnn_small", "highest"),
    ("allcnn", "tensorfloat32"),
)
"""A small network in float32; that of Golatkar et al. 2020b, 16 times the arithmetic, in TF32."""


def run(context: Context) -> Iterator[Row]:
    """Two networks on all images, as many examples at a time as fit."""
    context.check_memory()
    data = context.data("cifar10")
    n = context.pick(data.train.size, 64)
    cases = context.pick(CASES, (("mlp", "highest"),))
    options: dict[str, Any] = context.pick({}, {"hidden": (8,)})
    for network, precision in cases:
        context.say(f"training {network}")
        model, start, trained, task = benchmark.problem(
            network, n, classes=10, data=(data.train, data.test), **options
        )
        rank = min(benchmark.METHOD.rank, max(1, benchmark.SKETCH_NUMBERS // (n * 10)))
        method = dataclasses.replace(
            benchmark.METHOD, rank=context.pick(rank, 4), precision=precision
        )

        @functools.cache
        def taken(chunk: int, method: NtkScrub = method, model: Model = model) -> int:
            return benchmark.memory(model, dataclasses.replace(method, chunk=chunk), n)

        context.say("how many examples at a time fit")
        limit = GIGABYTES * 1e9 - data.train.x.nbytes
        least, most = context.pick((250, 2000), (8, 16))
        chunk = largest_batch(taken, int(limit), least=least, most=most)
        context.say(f"scrubbing, products at {precision}")
        chosen = dataclasses.replace(method, chunk=chunk)
        scrubbed = chosen(benchmark.KEY, model, trained, task, initial=start)
        timing = benchmark.timing(scrubbed)
        held = (taken(chunk) + data.train.x.nbytes) / 1e9
        yield Row(
            "NTK scrub of CIFAR-10 (seconds)",
            f"{network}, {n:,} images x 10 outputs, products at {precision}",
            timing,
            value=timing.seconds,
            goal=SECONDS,
            lower_is_better=True,
            accuracy=benchmark.accuracy(scrubbed),
            note=f"{held:.3g} GB (goal {GIGABYTES:g}), {chunk} examples at a time, "
            f"preconditioner of rank {chosen.rank:,}",
            metrics={"gigabytes": held},
        )
