"""What the card can do at most: matrix products by precision, and a copy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.accelerator.context import Context
from benchmarks.frame import Row, compare

REPEATED = 8
"""Products, or copies, of one call, so that its launch does not count."""
PRECISIONS = {
    "bfloat16": ("bfloat16", "default"),
    "tensorfloat32": ("float32", "tensorfloat32"),
    "float32": ("float32", "highest"),
}
SHEETS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12, "L4": 121e12}
"""Dense bfloat16 FLOP/s of data sheets, by a part of the card's name."""


def run(context: Context) -> Iterator[Row]:
    side = context.pick(8192, 64)
    for name, (dtype, precision) in PRECISIONS.items():
        rate, seconds = product_rate(side, dtype, precision)
        yield Row(
            f"matrix product, {name}",
            f"{side} x {side} x {side}",
            seconds,
            value=rate / 1e12,
            note="TFLOP/s",
            metrics={"flops": rate},
        )
    yield copy_row(context.pick(2**30, 2**12))


def product_rate(side: int, dtype: str, precision: str) -> tuple[float, Any]:
    """Returns FLOP/s of products of random square matrices one after another, and the timing."""
    x, y = jax.random.normal(jax.random.key(0), (2, side, side), dtype)

    @jax.jit
    def products(x: Any, y: Any) -> Any:
        def body(_: Any, z: Any) -> Any:
            return jnp.matmul(z, y, precision=precision) / jnp.asarray(side**0.5, dtype)

        return jax.lax.fori_loop(0, REPEATED, body, x)

    timing = compare({"product": partial(products, x, y)}, repeats=5, warmups=2)["product"]
    return REPEATED * 2 * side**3 / timing.least, timing


def copy_row(n: int) -> Row:
    """Returns bytes read and written a second by y = x + 1 over n numbers, again and again."""

    @jax.jit
    def add(x: Any) -> Any:
        # Each pass reads and writes all of it: a barrier keeps passes from being one.
        def body(_: Any, x: Any) -> Any:
            return jax.lax.optimization_barrier(x + 1)

        return jax.lax.fori_loop(0, REPEATED, body, x)

    timing = compare({"copy": partial(add, jnp.zeros(n))}, repeats=5, warmups=2)["copy"]
    rate = REPEATED * 8 * n / timing.least
    return Row(
        "copy",
        f"{4 * n / 1e9:.3g} GB, float32",
        timing,
        value=rate / 1e12,
        note="TB/s read and written",
        metrics={"bytes": rate},
    )


def bfloat16_peak(context: Context) -> tuple[float, str]:
    """Returns the FLOP/s that utilisation is counted against, and where they are from."""
    kind = jax.devices()[0].device_kind
    for name, rate in SHEETS.items():
        if name in kind:
            return rate, f"{rate / 1e12:.0f} TFLOP/s of the data sheet"
    rate, _ = product_rate(context.pick(8192, 64), "bfloat16", "default")
    return rate, f"{rate / 1e12:.3g} TFLOP/s of a matrix product"
