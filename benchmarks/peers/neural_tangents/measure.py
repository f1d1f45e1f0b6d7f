"""Times every NTK implementation of neural-tangents, in its own environment.

    python measure.py problem.npz result.npz

`problem.npz` holds `network`, `repeats`, `x` and the parameters as `<layer>.kernel` and
`<layer>.bias`, layers in order; `result.npz` gets the kernel [n, c, n, c], the names of the
implementations and the seconds of each, NaN where one does not run.
"""

import sys
import time

import jax
import neural_tangents as nt
import numpy as np
from jax import lax

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


def main(problem, result):
    data = np.load(problem)
    layers = []
    for name in data.files:
        if name.endswith(".kernel"):
            layers.append((data[name], data[name.replace(".kernel", ".bias")]))
    apply = {"lenet": lenet, "allcnn": allcnn}[str(data["network"])]
    x, seconds, names, kernel = jax.numpy.asarray(data["x"]), [], [], None
    layers = jax.device_put(layers)
    for implementation in nt.NtkImplementation:
        if implementation.name == "AUTO":
            continue
        names.append(implementation.name)
        try:
            with jax.default_matmul_precision("highest"):
                function = jax.jit(
                    nt.empirical_ntk_fn(
                        apply, trace_axes=(), vmap_axes=0, implementation=implementation
                    )
                )
                out = function(x, None, layers).block_until_ready()
                times = []
                for _ in range(int(data["repeats"])):
                    start = time.perf_counter()
                    function(x, None, layers).block_until_ready()
                    times.append(time.perf_counter() - start)
            seconds.append(float(np.median(times)))
            kernel = np.asarray(out).transpose(0, 2, 1, 3)
        except Exception as error:
            print(implementation.name, repr(error)[:300], file=sys.stderr)
            seconds.append(float("nan"))
        print(names[-1], seconds[-1], flush=True)
    np.savez(result, kernel=kernel, names=names, seconds=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
