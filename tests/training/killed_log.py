"""A logged training run that a test kills: python killed_log.py FOLDER OUTPUT."""

import sys
from pathlib import Path

import jax
from killed_run import apply, init

from unlearnkit.base import Dataset, Model
from unlearnkit.training import Recipe, fit, save_variables

RECIPE = Recipe(epochs=12, batch_size=32, learning_rate=0.01, gradient_noise=1e-3)


def main(folder: str, output: str) -> None:
    x = jax.random.normal(jax.random.key(0), (320, 64))
    dataset = Dataset(x, jax.random.randint(jax.random.key(1), (320,), 0, 10))
    model = Model.from_functions(init, apply, input_shape=(64,))
    print("ready", flush=True)
    trained = fit(
        jax.random.key(5),
        model,
        dataset,
        RECIPE,
        trajectory=folder,
        every=4,
        on_epoch=lambda epoch, _: print(f"epoch {epoch}", flush=True),
    )
    history = {name: values.tolist() for name, values in trained.info.history.items()}
    save_variables(Path(output), trained.variables, {"history": history})
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
