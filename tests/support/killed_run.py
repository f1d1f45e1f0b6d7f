"""A training run that a test kills: python killed_run.py checkpoint|trajectory FOLDER OUTPUT."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from unlearnkit.base import Dataset
from unlearnkit.models import from_functions
from unlearnkit.training import Recipe, fit, save_variables

EXAMPLES = {"checkpoint": 2000, "trajectory": 320}
RECIPES = {
    "checkpoint": Recipe(
        epochs=60, batch_size=32, optimizer="adam", learning_rate=1e-3, gradient_noise=1e-3
    ),
    "trajectory": Recipe(epochs=12, batch_size=32, learning_rate=0.01, gradient_noise=1e-3),
}
"""A log holds weights at every few steps: its run is shorter."""


def init(key):
    first, second = jax.random.split(key)
    return {
        "hidden": {"kernel": 0.1 * jax.random.normal(first, (64, 256)), "bias": jnp.zeros(256)},
        "logits": {"kernel": 0.1 * jax.random.normal(second, (256, 10)), "bias": jnp.zeros(10)},
    }


def apply(params, x):
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["logits"]["kernel"] + params["logits"]["bias"]


def main(kind: str, folder: str, output: str) -> None:
    n = EXAMPLES[kind]
    x = jax.random.normal(jax.random.key(0), (n, 64))
    dataset = Dataset(x, jax.random.randint(jax.random.key(1), (n,), 0, 10))
    model = from_functions(init, apply, input_shape=(64,))
    written = {"checkpoint": folder} if kind == "checkpoint" else {"trajectory": folder, "every": 4}
    print("ready", flush=True)
    trained = fit(
        jax.random.key(5),
        model,
        dataset,
        RECIPES[kind],
        on_epoch=lambda epoch, _: print(f"epoch {epoch}", flush=True),
        **written,
    )
    history = {name: values.tolist() for name, values in trained.info.history.items()}
    save_variables(Path(output), trained.variables, {"history": history})
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
