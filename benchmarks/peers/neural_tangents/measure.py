"""Times one NTK implementation of neural-tangents, in its own environment.

    python measure.py IMPLEMENTATION problem.npz result.npz

`problem.npz` holds `network`, `x`, the parameters as `<layer>.kernel` and `<layer>.bias`, layers
in order, and how often (`repeats`) and for how long (`least_seconds`) to call it at the least;
`result.npz` gets the kernel [n, c, n, c], the seconds of the first call and of the others, and the
bytes that the process held at most beyond the inputs.
"""

import resource
import sys
import time
import types

import jax
import numpy as np
from jax import lax

# Its part for TensorFlow, which it imports by itself, is not measured and not installed.
sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")

import neural_tangents as nt  # noqa: E402

STRIDES = {"allcnn": (1, 1, 2, 1, 1, 2, 1, 1, 1)}


def conv(x, layer, stride=1, padding=0):
    kernel, bias = layer
    pad = ((padding, padding), (padding, padding))
    numbers = ("NHWC", "HWIO", "NHWC")
    return (
        lax.conv_general_dilated(x, kernel, (stride, stride), pad, dimension_numbers=numbers) + bias
    )


def max_pool(x):
    return lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def lenet(params, x):
    h = max_pool(jax.nn.relu(conv(x, params[0], padding=2)))
    h = max_pool(jax.nn.relu(conv(h, params[1])))
    h = h.reshape(h.shape[0], -1)
    for kernel, bias in params[2:4]:
        h = jax.nn.relu(h @ kernel + bias)
    return h @ params[4][0] + params[4][1]


def allcnn(params, x):
    h = x
    for i, (layer, stride) in enumerate(zip(params, STRIDES["allcnn"], strict=True)):
        h = conv(h, layer, stride, padding=layer[0].shape[0] // 2)
        h = jax.nn.relu(h) if i < 8 else h
    return h.mean(axis=(1, 2))


def main(implementation, problem, result):
    data = np.load(problem)
    layers = []
    for name in data.files:
        if name.endswith(".kernel"):
            layers.append((data[name], data[name.replace(".kernel", ".bias")]))
    apply = {"lenet": lenet, "allcnn": allcnn}[str(data["network"])]
    x, layers = jax.device_put((data["x"], layers))
    before = most_bytes()
    with jax.default_matmul_precision("float32"):
        function = jax.jit(
            nt.empirical_ntk_fn(
                apply,
                trace_axes=(),
                vmap_axes=0,
                implementation=nt.NtkImplementation[implementation],
            )
        )
        start = time.perf_counter()
        kernel = function(x, None, layers).block_until_ready()
        first = time.perf_counter() - start
        times = []
        repeats, least_seconds = int(data["repeats"]), float(data["least_seconds"])
        while len(times) < repeats or sum(times) < least_seconds:
            start = time.perf_counter()
            function(x, None, layers).block_until_ready()
            times.append(time.perf_counter() - start)
    kernel = np.asarray(kernel).transpose(0, 2, 1, 3)
    np.savez(result, kernel=kernel, first=first, seconds=times, bytes=most_bytes() - before)


def most_bytes():
    """Returns the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
