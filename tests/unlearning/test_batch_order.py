"""Every method that makes several passes sees other batches in each of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.base import Dataset, Model, Task, Variables
from unlearnkit.training import Recipe
from unlearnkit.unlearning import (
    BoundaryShrink,
    CatastrophicLastLayers,
    ExactLastLayers,
    FineTune,
    GradientAscent,
    L1Sparse,
    NegGradPlus,
    NoisyDescent,
    RandomLabel,
    Retrain,
    SalUn,
    Scrub,
    StackelbergUnlearn,
)

RETAIN, FORGET, BATCH = 24, 12, 4
ONE = {"epochs": 3, "batch_size": BATCH, "learning_rate": 1e-3}
TWO = {**ONE, "forget_batch_size": BATCH}

METHODS = {
    "retrain": Retrain(Recipe(epochs=3, batch_size=BATCH)),
    "fine_tune": FineTune(**ONE),
    "noisy_descent": NoisyDescent(**ONE),
    "gradient_ascent": GradientAscent(**ONE),
    "neg_grad_plus": NegGradPlus(**TWO),
    "random_label": RandomLabel(**TWO),
    "salun": SalUn(**TWO),
    "l1_sparse": L1Sparse(**ONE),
    "boundary_shrink": BoundaryShrink(**ONE, box=None),
    "scrub": Scrub(**TWO, max_epochs=3),
    "exact_last_layers": ExactLastLayers(**ONE, k=1),
    "catastrophic_last_layers": CatastrophicLastLayers(**ONE, k=1),
    "stackelberg": StackelbergUnlearn(**ONE),
}


class Watched:
    """A linear network with a fixed layer before it, that remembers its training batches."""

    def __init__(self):
        self.batches = []

        def init(key):
            return Variables(
                {
                    "first": {"kernel": jnp.eye(3), "bias": jnp.zeros(3)},
                    "last": {"kernel": 0.1 * jax.random.normal(key, (3, 3)), "bias": jnp.zeros(3)},
                }
            )

        def outputs(variables, x):
            for layer in variables.params.values():
                x = x @ layer["kernel"] + layer["bias"]
            return x

        def apply(variables, x):
            # A step with its statistics frozen; not a look at a set, and not a probe of two rows.
            if 2 < len(x) <= 2 * BATCH:
                jax.debug.callback(self._see, x[:, 0])
            return outputs(variables, x)

        def apply_train(variables, x, key):
            jax.debug.callback(self._see, x[:, 0])
            return outputs(variables, x), {}

        self.model = Model(
            init=init, apply=apply, apply_train=apply_train, input_shape=(3,), n_classes=3,
            layers=((("first",),), (("last",),)),
        )  # fmt: skip

    def _see(self, numbers):
        self.batches.append(frozenset(np.round(100 * np.asarray(numbers)).astype(int).tolist()))

    def epochs(self, method, task):
        """Returns the sets of batches of each epoch."""
        ends = []

        def on_epoch(*_):
            jax.effects_barrier()
            ends.append(len(self.batches))

        variables = self.model.init(jax.random.key(0))
        method(jax.random.key(1), self.model, variables, task, on_epoch=on_epoch)
        return [self.batches[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def numbered(start, n):
    x = jnp.zeros((n, 3)).at[:, 0].set((start + jnp.arange(n)) / 100)
    x = x.at[:, 1:].set(jax.random.normal(jax.random.key(start), (n, 2)))
    return Dataset(x, jnp.arange(n, dtype=jnp.int32) % 3)


TASK = Task(numbered(0, RETAIN), numbered(100, FORGET), numbered(200, 12), numbered(300, 12))


@pytest.mark.parametrize("name", METHODS)
def test_each_pass_has_batches_of_its_own(name):
    epochs = Watched().epochs(METHODS[name], TASK)
    assert len(epochs) == 3
    assert all(epochs)
    for part in (range(RETAIN), range(100, 100 + FORGET)):
        of_part = [
            {frozenset(b & set(part)) for b in batches} - {frozenset()} for batches in epochs
        ]
        if any(of_part):
            assert of_part[0] != of_part[1] != of_part[2]
