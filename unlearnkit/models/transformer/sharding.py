"""Which axis of each array of a decoder is shared out over the devices of a mesh: one table."""

from __future__ import annotations

import re

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unlearnkit.base import Variables

RULES: tuple[tuple[str, int], ...] = (
    (r"(wte|embed_tokens|lm_head)/weight$", 1),
    (r"(c_attn|c_fc)/(weight|bias)$", -1),
    (r"c_proj/weight$", 0),
    (r"(q_proj|k_proj|v_proj|gate_proj|up_proj)/weight$", 0),
    (r"(o_proj|down_proj)/weight$", 1),
)
"""Ends of names, each with the axis that is shared; what no rule names, every device has.

A block's first matrices are shared by their outputs and its last by their inputs, so that devices
meet once after the attention and once after the perceptron; embeddings are shared by the width.

Source: Shoeybi et al. 2019, §3.
"""


def partition_specs(variables: Variables, mesh: Mesh, *, axis: str = "model") -> Variables:
    """Returns the `PartitionSpec` of each array, by `RULES`.

    Args:
      variables: of `transformer`, or their shapes.
      mesh: the devices.
      axis: of the mesh, over which weights are shared. An array whose axis it does not divide
        stays whole.

    Raises:
      ValueError: the mesh has no such axis.
    """
    if axis not in mesh.axis_names:
        raise ValueError(f"the mesh has the axes {mesh.axis_names}, got axis={axis!r}")
    parts = mesh.shape[axis]

    def spec(path: tuple[object, ...], leaf: jax.Array) -> PartitionSpec:
        name = "/".join(str(getattr(entry, "key", entry)) for entry in path)
        shared = next((at for rule, at in RULES if re.search(rule, name)), None)
        if shared is None or leaf.shape[shared] % parts:
            return PartitionSpec()
        names: list[str | None] = [None] * leaf.ndim
        names[shared] = axis
        return PartitionSpec(*names)

    found: Variables = jax.tree_util.tree_map_with_path(spec, variables)
    return found


def shard_variables(variables: Variables, mesh: Mesh, *, axis: str = "model") -> Variables:
    """Returns weights shared out over the devices of a mesh; what is computed of them is as before.

    Args:
      variables: of `transformer`.
      mesh: the devices.
      axis: see `partition_specs`.

    Raises:
      ValueError: the mesh has no such axis.

    Example:
      mesh = jax.sharding.Mesh(jax.devices(), ("model",))
      variables = models.shard_variables(variables, mesh)
      logits = jax.jit(model.apply)(variables, x)
    """
    specs = partition_specs(variables, mesh, axis=axis)
    placed: Variables = jax.tree.map(
        lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), variables, specs
    )
    return placed
