"""Curvature products, EK-FAC, spectra and projected Jacobians against curvlinops, matfree and TRAK.

Run with `python -m benchmarks curvature`, with the extra `peers`. The same weights and images go to
all of one row, which are timed turn by turn, and their numbers are compared. A row whose peer is
not installed has no peer.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks import problems
from benchmarks.frame import Row, compare
from unlearnkit import kernels, models
from unlearnkit.base import Dataset

N, FEW = 1000, 100
CHUNK = 100
"""Examples at a time in products, whose activations then stay in a processor's cache."""
STEPS, SAMPLES = 30, 10
RANK = 512
REPEATS = 5
GOAL = 1.5


def run() -> list[Row]:
    x, y, _ = problems.mnist(10_000)
    params = problems.train(
        problems.apply_lenet, problems.init_lenet(jax.random.key(0)), x, y, epochs=1
    )
    images, labels = jnp.asarray(x[:N]), jnp.asarray(y[:N])
    return [
        *product_rows(params, images, labels),
        *spectrum_rows(params, images),
        projection_row(params, images[:FEW]),
        convolution_row(images[:100]),
    ]


def product_rows(params: Any, x: jax.Array, y: jax.Array) -> list[Row]:
    """Hessian and Gauss-Newton products and EK-FAC, against curvlinops."""
    v = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(1), leaf.shape), params)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return problems.cross_entropy(problems.apply_lenet(params, x), y)

    @jax.jit
    def hessian(params: Any, x: jax.Array, y: jax.Array, v: Any) -> Any:
        return kernels.risk_hessian_operator(loss, params, Dataset(x, y), chunk=CHUNK)(v)

    @jax.jit
    def gauss_newton(params: Any, x: jax.Array, v: Any) -> Any:
        of_outputs = kernels.cross_entropy_hessian
        apply = problems.apply_lenet
        return kernels.risk_ggn_operator(apply, params, x, of_outputs, chunk=CHUNK)(v)

    @jax.jit
    def ekfac(params: Any, x: jax.Array, v: Any) -> Any:
        """Takes the convolutions as `lax` has them, since K-FAC does not read patches."""
        factors = kernels.ekfac_factors(problems.apply_lenet_by_xla, params, x, chunk=CHUNK)
        return kernels.ekfac_operator(factors)(v)

    few = without_ties(x[:FEW])
    ours: dict[str, tuple[str, Callable[[], Any]]] = {
        "Hessian product": (f"LeNet, n {N:,}", lambda: hessian(params, x, y, v)),
        "Gauss-Newton product": (f"LeNet, n {N:,}", lambda: gauss_newton(params, x, v)),
        "EK-FAC, made and applied once": (f"LeNet, n {FEW}", lambda: ekfac(params, few, v)),
    }
    theirs = _curvlinops(params, x, y, few, v)
    return [
        _row(name, size, call, "curvlinops", theirs.get(name))
        for name, (size, call) in ours.items()
    ]  # fmt: skip


def without_ties(x: jax.Array) -> jax.Array:
    """Returns the images with a little noise.

    Pixels of a pool that are equally large share its gradient here, and PyTorch gives it to one:
    the products with a Hessian are the same, but not the factors of K-FAC.
    """
    return x + 0.05 * jax.random.normal(jax.random.key(4), x.shape)


def spectrum_rows(params: Any, x: jax.Array) -> list[Row]:
    """Eigenvalues and a log-determinant of one Gauss-Newton matrix, against matfree."""
    flat, unravel = ravel_pytree(params)
    key = jax.random.key(2)
    start = jax.random.normal(key, flat.shape)

    def product(v: jax.Array, flat: jax.Array, x: jax.Array) -> jax.Array:
        hessian = kernels.cross_entropy_hessian
        found = kernels.ggn_vp(problems.apply_lenet, unravel(flat), x, hessian, unravel(v))
        return ravel_pytree(found)[0] + 0.1 * v

    @jax.jit
    def linearised(flat: jax.Array, x: jax.Array) -> jax.Array:
        hessian = kernels.cross_entropy_hessian
        operator = kernels.ggn_operator(problems.apply_lenet, unravel(flat), x, hessian)
        theta = kernels.SymmetricOperator(operator, params).damped(0.1).to_flat()
        return jnp.linalg.eigvalsh(kernels.lanczos(theta, start, steps=STEPS).matrix)

    @jax.jit
    def determinant(flat: jax.Array, x: jax.Array) -> kernels.Estimate:
        hessian = kernels.cross_entropy_hessian
        operator = kernels.ggn_operator(problems.apply_lenet, unravel(flat), x, hessian)
        theta = kernels.SymmetricOperator(operator, params).to_flat()
        options: Any = {"damping": 0.1, "steps": STEPS, "samples": SAMPLES}
        return kernels.log_determinant(key, theta, flat, **options)

    few = x[:FEW]
    theirs, logs = _matfree(product, start, key)
    rows = [
        _row(
            f"Lanczos, {STEPS} steps of the Gauss-Newton matrix",
            f"LeNet, n {N:,}",
            lambda: linearised(flat, x),
            "matfree, tridiag_sym",
            None if theirs is None else lambda: theirs(flat, x),
        )
    ]
    name = f"log-determinant, {SAMPLES} vectors of {STEPS} steps"
    call = None if logs is None else lambda: logs(flat, few)
    row = _row(name, f"LeNet, n {FEW}", lambda: determinant(flat, few).mean, "matfree", call)
    return [*rows, row]


def projection_row(params: Any, x: jax.Array) -> Row:
    """Jacobians on RANK random directions: how near their products are to the tangent kernel."""
    kernel = kernels.empirical_ntk(problems.apply_lenet, params, x)
    wanted = np.asarray(kernel).reshape(len(x) * 10, -1)

    def ours() -> jax.Array:
        # A shift of its own, for no preconditioner is asked for, and the rule takes eigenvalues.
        options: Any = {"damping": 1.0, "shift": 1.0, "rank": RANK, "chunk": 25}
        key = jax.random.key(3)
        return kernels.sketched_ntk(key, problems.apply_lenet, params, x, **options).factor

    def error(rows: Any) -> str:
        rows = np.asarray(rows)
        return (
            f"kernel off by {np.linalg.norm(rows @ rows.T - wanted) / np.linalg.norm(wanted):.2g}"
        )

    theirs = _trak(params, x)
    calls = {"ours": ours} | ({} if theirs is None else {"trak": theirs})
    timings = compare(calls, repeats=REPEATS)
    return Row(
        f"Jacobians of ten outputs on {RANK} random directions",
        f"LeNet, n {len(x)}",
        timings["ours"],
        "torch.func Jacobians and TRAK's BasicProjector",
        timings.get("trak"),
        goal=GOAL,
        accuracy=error(ours()),
        peer_accuracy="" if theirs is None else error(theirs()),
        note="" if theirs is not None else "TRAK is not installed",
    )


class _UsersNetwork(nn.Module):
    """A network as a user of flax writes it."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in (16, 32):
            x = nn.max_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


def convolution_row(x: jax.Array) -> Row:
    """Gradient steps inside a compiled loop: `nn.Conv` as it is, and by patches."""
    y = jnp.arange(len(x)) % 10

    def steps(how: str) -> Callable[[], Any]:
        model = models.from_linen(_UsersNetwork(), input_shape=(28, 28, 1), convolution=how)
        variables = model.init(jax.random.key(0))

        @jax.jit
        def descend(params: Any, x: jax.Array) -> Any:
            def loss(params: Any) -> jax.Array:
                return problems.cross_entropy(model.apply(variables._replace(params=params), x), y)

            def step(params: Any, _: None) -> tuple[Any, None]:
                slope = jax.grad(loss)(params)
                return jax.tree.map(lambda p, g: p - 0.1 * g, params, slope), None

            return jax.lax.scan(step, params, None, length=5)[0]

        return lambda: descend(variables.params, x)

    ours, theirs = steps("patches"), steps("xla")
    size = f"two nn.Conv of 16 and 32 features, batch {len(x)}"
    name = 'five steps in a compiled loop, convolution="patches"'
    return _row(name, size, ours, "the same network, XLA's convolution", theirs)


def _row(
    name: str, size: str, ours: Callable[[], Any], peer: str, theirs: Callable[[], Any] | None
) -> Row:
    if theirs is None:
        timing = compare({"ours": ours}, repeats=REPEATS)["ours"]
        return Row(name, size, timing, note=f"{peer} is not installed")
    timings = compare({"ours": ours, "theirs": theirs}, repeats=REPEATS)
    one, other = (np.asarray(ravel_pytree(call())[0], np.float64) for call in (ours, theirs))
    gap = float(np.linalg.norm(one - other) / np.linalg.norm(other))
    note = f"differs by {gap:.1e}"
    return Row(name, size, timings["ours"], peer, timings["theirs"], goal=GOAL, accuracy=note)


def _there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _curvlinops(
    params: Any, x: jax.Array, y: jax.Array, few: jax.Array, v: Any
) -> dict[str, Callable[[], np.ndarray]]:
    if not _there("curvlinops"):
        return {}
    import curvlinops
    import torch

    from benchmarks.peers import torch_models as peer

    network = peer.LeNet(params)
    weights = dict(network.named_parameters())
    loss = torch.nn.CrossEntropyLoss()
    direction = peer.lenet_params(v)
    vector = [direction[name] for name in weights]

    def data(x: jax.Array) -> list[Any]:
        return [(peer.tensor(x), peer.tensor(np.asarray(y[: len(x)], np.int64)))]

    options: Any = {"check_deterministic": False}
    given = (network, loss, list(weights.values()), data(x))
    hessian = curvlinops.HessianLinearOperator(*given, **options)
    gauss_newton = curvlinops.GGNLinearOperator(*given, **options)

    def back(product: list[Any]) -> np.ndarray:
        """In the order and the layout of our parameters."""
        found = peer.to_ours(dict(zip(weights, product, strict=True)), params)
        return np.asarray(ravel_pytree(found)[0])

    def ekfac() -> np.ndarray:
        made = curvlinops.EKFACLinearOperator(
            *given[:3],
            data(few),
            fisher_type=curvlinops.FisherType.TYPE2,
            separate_weight_and_bias=False,
            **options,
        )
        return back(made @ vector)

    return {
        "Hessian product": lambda: back(hessian @ vector),
        "Gauss-Newton product": lambda: back(gauss_newton @ vector),
        "EK-FAC, made and applied once": ekfac,
    }


def _matfree(
    product: Callable[..., jax.Array], start: jax.Array, key: jax.Array
) -> tuple[Callable[..., Any] | None, Callable[..., Any] | None]:
    if not _there("matfree"):
        return None, None
    from matfree import decomp, funm, stochtrace

    tridiagonal = decomp.tridiag_sym(STEPS)

    @jax.jit
    def eigenvalues(flat: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.linalg.eigvalsh(tridiagonal(product, start, flat, x).J_small)

    sampler = stochtrace.sampler_signs(start, num=SAMPLES)
    estimate = stochtrace.estimator_monte_carlo(
        funm.monte_carlo_funm_sym_logdet(tridiagonal), sampler
    )

    @jax.jit
    def determinant(flat: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.mean(estimate(product, key, flat, x))

    return eigenvalues, determinant


def _trak(params: Any, x: jax.Array) -> Callable[[], np.ndarray] | None:
    if not _there("trak"):
        return None
    import torch
    from trak.projectors import BasicProjector, ProjectionType

    from benchmarks.peers import torch_models as peer

    weights, images = peer.lenet_params(params), peer.tensor(x)
    size = sum(leaf.numel() for leaf in weights.values())
    projector = BasicProjector(
        size, RANK, 0, ProjectionType.rademacher, torch.device(peer.DEVICE), block_size=RANK
    )

    def of_one(weights: Any, one: Any) -> Any:
        return peer.apply_lenet(weights, one[None])[0]

    rows_of = torch.func.vmap(torch.func.jacrev(of_one), in_dims=(None, 0))

    def call() -> np.ndarray:
        parts = []
        for some in images.split(25):
            leaves = rows_of(weights, some).values()
            rows = torch.cat([leaf.reshape(len(some) * 10, -1) for leaf in leaves], dim=1)
            parts.append(projector.project(rows, model_id=0))
        return torch.cat(parts).cpu().numpy() / RANK**0.5

    return call
