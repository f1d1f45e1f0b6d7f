"""The examples of docstrings: of every registered method, the entry points and all kernels."""

import inspect
import re
import textwrap

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from unlearnkit import (
    auditing,
    data,
    defences,
    forging,
    kernels,
    models,
    poisoning,
    reporting,
    studies,
    training,
    unlearning,
)

REGISTRIES = (
    unlearning.UNLEARNERS,
    poisoning.ATTACKS,
    defences.DEFENCES,
    auditing.AUDITS,
    forging.FORGERS,
)
ENTRIES = {
    "auditing.create": auditing.create,
    "auditing.evaluate": auditing.evaluate,
    "data.load": data.load,
    "data.make_task": data.make_task,
    "defences.create": defences.create,
    "defences.defend_and_retrain": defences.defend_and_retrain,
    "forging.calibrate": forging.calibrate,
    "forging.forge_trajectory": forging.forge_trajectory,
    "forging.honest_step": forging.honest_step,
    "forging.verify": forging.verify,
    "models.create": models.create,
    "models.from_functions": models.from_functions,
    "models.from_linen": models.from_linen,
    "models.from_nnx": models.from_nnx,
    "poisoning.create": poisoning.create,
    "studies.check": studies.check,
    "studies.compare": studies.compare,
    "studies.poison_and_unlearn": studies.poison_and_unlearn,
    "studies.read_study": studies.read_study,
    "studies.run": studies.run,
    "studies.significance": studies.significance,
    "studies.Study": studies.Study,
    "studies.sweep": studies.sweep,
    "training.fit": training.fit,
    "training.fit_many": training.fit_many,
    "unlearning.create": unlearning.create,
}
KERNELS = {
    name: thing
    for name in kernels.__all__
    if inspect.isfunction(thing := getattr(kernels, name)) or name == "GradientOperator"
}
EXAMPLES = (
    {thing.__name__: thing for registry in REGISTRIES for thing in registry.values()}
    | ENTRIES
    | {f"kernels.{name}": thing for name, thing in KERNELS.items()}
)
PACKAGES = {
    "auditing": auditing,
    "data": data,
    "defences": defences,
    "flax": flax,
    "forging": forging,
    "jax": jax,
    "jnp": jnp,
    "kernels": kernels,
    "models": models,
    "np": np,
    "optax": optax,
    "poisoning": poisoning,
    "reporting": reporting,
    "studies": studies,
    "training": training,
    "unlearning": unlearning,
}


def example(thing):
    """Returns the code of a docstring's example, or nothing."""
    doc = inspect.getdoc(thing) or ""
    section = re.search(r"^Example:\n((?:  .*\n|\n)+)", doc + "\n", re.MULTILINE)
    return textwrap.dedent(section[1]) if section else ""
