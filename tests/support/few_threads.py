"""Has OpenMP and OpenBLAS use one thread, in the processes that tests start too.

The suite runs a process on each core. Threads beyond that wait for one another in loops, which take
the cores from the tests: an audit by boosted trees takes many times as long on a busy machine. The
libraries read these variables as they are loaded, so this module is imported before SciPy.
"""

import os

from threadpoolctl import threadpool_limits

for library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

threadpool_limits(1)  # of what pytest's plugins have loaded, as NumPy
