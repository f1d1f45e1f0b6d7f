"""Batches of token ids are forged by choice of examples; forgers that make inputs refuse."""

import jax
import numpy as np
import pytest
from token_task import RECIPE, draw, make_model

from unlearnkit import cli
from unlearnkit.base import Variables
from unlearnkit.forging import FORGERS, SwapForger, create, honest_step
from unlearnkit.forging.detectors import (
    domain_violations,
    near_duplicates,
    scalar_multiples,
    superposition,
)
from unlearnkit.forging.steps import Step
from unlearnkit.training import fit

KEY = jax.random.key(5)
MAKE_INPUTS = ["grid_logistic", "logistic", "noise", "optimise"]


@pytest.mark.parametrize("name", MAKE_INPUTS)
def test_forgers_that_make_inputs_refuse_tokens(name):
    """Before the step is looked at, which is of no network."""
    step = Step(Variables({}), {}, 4, 0.1)
    with pytest.raises(ValueError, match=f"{FORGERS[name].__name__} needs inputs that are real"):
        create(name)(KEY, make_model(), step, draw(0, 20))


def test_examples_are_swapped():
    model, allowed = make_model(), draw(0, 40)
    step = honest_step(model, jax.jit(model.init)(KEY), draw(1, 8), learning_rate=0.1)
    batch, error, _ = SwapForger()(KEY, model, step, allowed)
    assert np.isfinite(error)
    rows = {row.tobytes() for row in np.asarray(allowed.x)}
    assert all(row.tobytes() in rows for row in np.asarray(batch.x))


@pytest.mark.parametrize(
    "detect",
    [
        domain_violations,
        lambda batch: near_duplicates(batch, batch),
        lambda batch: scalar_multiples(batch, batch),
        lambda batch: superposition(batch, batch),
    ],
)
def test_detectors_of_images_refuse_tokens(detect):
    with pytest.raises(ValueError, match=r"needs inputs that are real numbers, as images"):
        detect(draw(0, 4))


def test_a_log_is_verified_from_files(tmp_path):
    train, test = draw(1, 60), draw(2, 10)
    fit(KEY, make_model(), train, RECIPE, trajectory=tmp_path / "log", every=10)
    arrays = {"x_train": train.x, "y_train": train.y, "x_test": test.x, "y_test": test.y}
    np.savez(tmp_path / "text.npz", **{name: np.asarray(array) for name, array in arrays.items()})
    arguments = ["--data", str(tmp_path / "text.npz"), "--model", "token_task:make_model"]
    assert cli.run(["verify", str(tmp_path / "log"), *arguments, "--tolerance", "0"]) == 0
