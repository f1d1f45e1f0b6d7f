"""Has XLA compile for the CPU in half of the time.

Tests compile much and compute little. Without most optimisations, without fusion by MLIR, and with
each program in one piece rather than split for threads, a program takes less than half the work.
The fixture `optimised` takes all of it back, for tests of the programs that users have. Options
that a jaxlib does not know end it, so they are only given to releases that they were tried with.
"""

import os
from importlib.metadata import version

import jax
from jax._src import compiler

TRIED = ("0.10.",)
OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}


def compile_quickly() -> None:
    """Has this process compile so, and processes that it starts without most optimisations."""
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    if not version("jaxlib").startswith(TRIED):
        return
    usual = compiler.get_compile_options

    def get_compile_options(*arguments, **named):
        options = usual(*arguments, **named)
        if jax.config.read("jax_disable_most_optimizations"):
            options.env_option_overrides = [*options.env_option_overrides, *OPTIONS.items()]
        return options

    compiler.get_compile_options = get_compile_options
