"""Paper 004: the NTK scrub of all of CIFAR-10, every image and every output."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from benchmarks import ntk_scrub as benchmark
from benchmarks.accelerator.context import Context
from benchmarks.frame import Row
from unlearnkit.memory import largest_batch

GIGABYTES = 20.0
"""That the scrub may take."""
SECONDS = 180.0


def run(context: Context) -> Iterator[Row]:
    """All-CNN on all images, then 004's own width; products in float32 and in TF32."""
    context.check_memory()
    data = context.data("cifar10")
    n = context.pick(data.train.size, 64)
    networks = context.pick(("allcnn_small", "allcnn"), ("mlp",))
    options: dict[str, Any] = context.pick({}, {"hidden": (8,)})
    for network in networks:
        context.say(f"training {network}")
        model, start, trained, task = benchmark.problem(
            network, n, classes=10, data=tuple(data), **options
        )
        rank = min(benchmark.METHOD.rank, max(1, benchmark.SKETCH_NUMBERS // (n * 10)))
        method = dataclasses.replace(benchmark.METHOD, rank=context.pick(rank, 4))

        def taken(chunk: int, method=method, model=model) -> int:
            return benchmark.memory(model, dataclasses.replace(method, chunk=chunk), n)

        context.say("how many examples at a time fit")
        limit = GIGABYTES * 1e9 - data.train.x.nbytes
        least, most = context.pick((250, 2000), (8, 16))
        chunk = largest_batch(taken, int(limit), least=least, most=most)
        for precision in context.pick(("highest", "tensorfloat32"), ("highest",)):
            context.say(f"scrubbing, products at {precision}")
            chosen = dataclasses.replace(method, chunk=chunk, precision=precision)
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
