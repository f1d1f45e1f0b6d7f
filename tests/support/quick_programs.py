"""Has XLA compile for the CPU in half of the time, in the processes that tests start too.

Tests compile much and compute little. Without most optimisations, without fusion by MLIR, and with
each program in one piece rather than split for threads, a program takes less than half the work.
The flags are read when JAX makes its first array; those that a jaxlib does not know end it, so
they are only given to releases that they were tried with.
"""

import os
from importlib.metadata import version

TRIED = ("0.10.",)
FLAGS = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")

os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
if version("jaxlib").startswith(TRIED):
    given = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join([*given, *(flag for flag in FLAGS if flag not in given)])
