"""Low-rank adapters: a language network of which only thin matrices beside its own are trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from unlearnkit.base import Model, Params, Path, State, Variables
from unlearnkit.models.adopting import Adopted
from unlearnkit.models.assembling import Held
from unlearnkit.models.fresh import at_hand
from unlearnkit.models.transformer.configuration import Network
from unlearnkit.models.transformer.decoder import network_of
from unlearnkit.models.transformer.parameters import CLASSIFIER, put, shapes_of
from unlearnkit.validation import check_variables

TARGETS: Mapping[str, tuple[str, ...]] = {"gpt2": ("c_attn",), "llama": ("q_proj", "v_proj")}
"""The matrices that get an adapter where nothing is said, by family."""
BASE = "base"
"""Where the frozen weights stand in the state."""


def lora(
    model: Model,
    variables: Variables,
    *,
    key: Key[Array, ""],
    rank: int = 8,
    targets: tuple[str, ...] | None = None,
) -> Adopted:
    """Returns a network whose parameters are low-rank adapters of another's matrices.

    y = x W + (x A) B,  A [in, rank] ~ U(-in^-1/2, in^-1/2),  B [rank, out] = 0 at first

    W stands in the state and is not trained, so that every method that moves the parameters moves
    the adapters alone; there are no gradients and no optimiser's memory of W. A head of classes is
    trained whole. `model.init` draws new adapters around the same W: retraining starts from the
    network as it was given.

    Args:
      model: of `transformer` or `load_pretrained`.
      variables: its weights.
      key: draws A.
      rank: of the adapters.
      targets: names of the matrices that get one, as `("c_attn", "c_proj")`; None for `c_attn` of
        the family `gpt2`, `q_proj` and `v_proj` of `llama`.

    Raises:
      ValueError: another kind of network, one with adapters, other weights than the network's, no
        name or one that no matrix has, or a rank above a matrix's.

    Source: Hu et al. 2021, §4.1, with α = rank: their scale α / rank is 1.

    Example:
      adapted, start = models.lora(model, variables, key=key, rank=8)
      forgotten = unlearning.GradientAscent()(key, adapted, start, task)
      model, variables = models.merge_lora(adapted, forgotten.variables)
    """
    network = network_of(model)
    if isinstance(model.apply, _Apply):
        raise ValueError("the network has adapters already; merge them by models.merge_lora")
    chosen = TARGETS[network.decoder.family] if targets is None else targets
    check_variables(variables, model)
    shapes = _adapters_of(network, chosen, rank)
    base = _without(variables.params, CLASSIFIER)
    init = _Init(
        model, network, rank, tuple(shapes.items()), Held(jax.block_until_ready({BASE: base}))
    )
    layers = tuple(
        kept
        for group in model.layers
        if (kept := tuple(path for path in group if path in shapes or path == CLASSIFIER[:-1]))
    )
    adapted = model._replace(
        init=init,
        apply=_Apply(model, network),
        apply_train=_ApplyTrain(model),
        layers=layers,
        origin=None,
        embed=_Embed(model),
        apply_embedded=_ApplyEmbedded(model),
    )
    start = init(key)
    if network.head == "classes":
        put(start.params, CLASSIFIER, variables.params["classifier"]["kernel"])
    return Adopted(adapted, start)


def merge_lora(model: Model, variables: Variables) -> Adopted:
    """Returns the network without adapters that computes the same: W + A B in the place of W.

    Args:
      model: of `lora`.
      variables: its adapters, with the frozen weights in the state.

    Raises:
      ValueError: a network without adapters.
    """
    if not isinstance(model.apply, _Apply):
        raise ValueError("the network has no adapters; models.lora gives it some")
    family = model.apply.network.decoder.family

    def merged(tree: Params) -> Params:
        if not isinstance(tree, Mapping):
            return tree
        if "lora_a" not in tree:
            return {name: merged(value) for name, value in tree.items()}
        product = tree["lora_a"] @ tree["lora_b"]
        weight = tree["weight"] + (product if family == "gpt2" else product.T)
        kept = {n: v for n, v in tree.items() if n not in ("lora_a", "lora_b")}
        return {**kept, "weight": weight}

    return Adopted(model.apply.model, Variables(merged(_joined(variables).params)))


def _adapters_of(
    network: Network, targets: tuple[str, ...], rank: int
) -> dict[Path, tuple[int, int]]:
    """Returns the inputs and outputs of each matrix that gets an adapter, by its path."""
    matrices = {
        path[:-1]: shape
        for path, shape in shapes_of(network).items()
        if len(path) > 3 and len(shape) == 2
    }
    names = sorted({path[-1] for path in matrices})
    if not targets:
        raise ValueError(f"targets must name one of the matrices of a block: {', '.join(names)}")
    if unknown := [name for name in targets if name not in names]:
        raise ValueError(
            f"no matrix of a block is called {unknown[0]!r}; there are {', '.join(names)}"
        )
    found = {path: shape for path, shape in matrices.items() if path[-1] in targets}
    most = min(min(shape) for shape in found.values())
    if not 1 <= rank <= most:
        raise ValueError(f"rank must be in 1 … {most}, the rank of the matrices, got {rank}")
    if network.decoder.family == "llama":
        found = {path: (shape[1], shape[0]) for path, shape in found.items()}
    return {path: (shape[0], shape[1]) for path, shape in found.items()}


def _without(params: Params, path: Path) -> Params:
    return {name: value for name, value in params.items() if name != path[0]}


def _joined(variables: Variables) -> Variables:
    """Returns the frozen weights and the adapters as one tree; no array is copied."""

    def join(one: Params, other: Params) -> Params:
        if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
            return other
        shared = {n: join(v, other[n]) if n in other else v for n, v in one.items()}
        return {**shared, **{n: v for n, v in other.items() if n not in one}}

    return Variables(join(variables.state[BASE], variables.params))


@dataclasses.dataclass(frozen=True)
class _Init:
    """Draws adapters around frozen weights."""

    model: Model
    network: Network
    rank: int
    shapes: tuple[tuple[Path, tuple[int, int]], ...]
    state: Held

    def __call__(self, key: Key[Array, ""]) -> Variables:
        params: dict[str, object] = {}
        for number, (path, (inputs, outputs)) in enumerate(self.shapes):
            bound = inputs**-0.5
            drawn = jax.random.uniform(
                jax.random.fold_in(key, number), (inputs, self.rank), minval=-bound, maxval=bound
            )
            put(params, (*path, "lora_a"), drawn)
            put(params, (*path, "lora_b"), jnp.zeros((self.rank, outputs)))
        if self.network.head == "classes":
            head = self.model.init(key).params["classifier"]["kernel"]
            put(params, CLASSIFIER, head)
        return Variables(params, at_hand(self.state, key))


@dataclasses.dataclass(frozen=True)
class _Apply:
    model: Model
    network: Network

    def __call__(self, variables: Variables, x: Array) -> Array:
        return self.model.apply(_joined(variables), x)


@dataclasses.dataclass(frozen=True)
class _ApplyTrain:
    model: Model

    def __call__(self, variables: Variables, x: Array, key: Key[Array, ""]) -> tuple[Array, State]:
        return self.model.apply_train(_joined(variables), x, key)[0], variables.state


@dataclasses.dataclass(frozen=True)
class _Embed:
    model: Model

    def __call__(self, variables: Variables, x: Array) -> Array:
        assert self.model.embed is not None
        return self.model.embed(_joined(variables), x)


@dataclasses.dataclass(frozen=True)
class _ApplyEmbedded:
    model: Model

    def __call__(
        self, variables: Variables, embedded: Array, x: Array, key: Key[Array, ""] | None = None
    ) -> Array:
        assert self.model.apply_embedded is not None
        found: Array = self.model.apply_embedded(_joined(variables), embedded, x, key)
        return found
