"""Logits and a gradient of both families, with weights shared over eight simulated devices."""

import jax
import jax.numpy as jnp
import numpy as np

from unlearnkit import models
from unlearnkit.base import Variables

X = jnp.asarray(np.random.default_rng(0).integers(1, 20, (8, 6)), jnp.int32)


def compute(model):
    def loss(params, x):
        logits = model.apply(Variables(params), x)
        return (logits**2).mean(), logits

    return jax.jit(jax.grad(loss, has_aux=True))


def main():
    assert jax.device_count() == 8
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    for name, shared in (("gpt2_tiny", 9), ("llama_tiny", 15)):
        model = models.create(name, input_shape=(6,), n_classes=20, head="answer", scan=True)
        variables = model.init(jax.random.key(0))
        spread = models.shard_variables(variables, mesh)
        whole = [leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(spread)]
        assert whole.count(False) == shared + 4 * (name == "gpt2_tiny"), whole.count(False)
        for leaf in jax.tree.leaves(spread):
            held = leaf.addressable_shards[0].data.size
            assert held == leaf.size // (1 if leaf.sharding.is_fully_replicated else 4)
        expected = compute(model)(variables.params, X)
        found = compute(model)(spread.params, jax.device_put(X, rows))
        for one, other in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    print("the same on 8 devices")


if __name__ == "__main__":
    main()
