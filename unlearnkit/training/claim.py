"""The contents of a training log's manifest: what the log claims about its run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.base import Dataset, Model, Normalisation, Tokens, Variables
from unlearnkit.io.files import sha256_of_array
from unlearnkit.io.text import escaped
from unlearnkit.models import create
from unlearnkit.training.checkpoint import CheckpointError, flatten
from unlearnkit.training.recipe import Recipe, rate_table


class TrajectoryError(CheckpointError):
    """A log of training that is corrupt, foreign, of another version, or about other data.

    Its message may quote the log, and so is escaped and bounded.
    """

    def __init__(self, message: str):
        super().__init__(escaped(message, 2000))


class NetworkClaim(NamedTuple):
    """The network of a log.

    Attributes:
      name: its name for `models.create`, or None for a custom network.
      options: further arguments of `models.create`.
      input_shape: the shape of one example.
      n_classes: the number of logits.
    """

    name: str | None
    options: Mapping[str, Any]
    input_shape: tuple[int, ...]
    n_classes: int


class StartClaim(NamedTuple):
    """The initial weights of a logged run.

    Attributes:
      derived: whether the network was initialised with the first half of the log's key; otherwise
        they were given (pretrained), and the log holds only their digest.
      sha256: `variables_sha256` of them.
    """

    derived: bool
    sha256: str


class DataClaim(NamedTuple):
    """The data of a log.

    Attributes:
      examples: the number of examples.
      shape: of one example.
      x_sha256: over type, shape and every byte of the inputs.
      y_sha256: likewise of the labels.
      normalisation: normalisation of the inputs, or their vocabulary.
    """

    examples: int
    shape: tuple[int, ...]
    x_sha256: str
    y_sha256: str
    normalisation: Normalisation | Tokens


class Claim(NamedTuple):
    """A log's claims about its run; together with the batch order they determine every step.

    Attributes:
      recipe: how it trained.
      network: what it trained.
      key_impl: the generator of its key.
      key_data: the key that `unlearnkit.training.fit` was given. One half initialises the network,
        the other draws the batch order, and the augmentation, dropout and noise of each step.
      start: its initial weights.
      every: steps between two checkpoints.
      matmul_precision: JAX's `jax_default_matmul_precision` while it trained.
      data: the training set.
      environment: device, versions and flags; see `unlearnkit.io.provenance.environment`.
      batches_sha256: the digest of the file of batch indices.
      examples_sha256: the digest of the file of `example_digests`, which locate the training rows
        in a larger dataset; not verified.
    """

    recipe: Recipe
    network: NetworkClaim
    key_impl: str
    key_data: tuple[int, ...]
    start: StartClaim
    every: int
    matmul_precision: str | None
    data: DataClaim
    environment: Mapping[str, str]
    batches_sha256: str
    examples_sha256: str

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.recipe.steps_per_epoch(self.data.examples)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.epochs * self.steps_per_epoch

    @property
    def key(self) -> Key[Array, ""]:
        """The key of the run."""
        words = jnp.array(self.key_data, jnp.uint32)
        found: Array = jax.random.wrap_key_data(words, impl=self.key_impl)
        return found

    @property
    def init_key(self) -> Key[Array, ""]:
        """The key that initialises the network."""
        return jax.random.split(self.key)[0]

    @property
    def rates(self) -> Float[np.ndarray, " steps"]:
        """The learning rate of each step."""
        return rate_table(self.recipe, self.steps_per_epoch, self.steps)

    @property
    def order_key(self) -> Key[Array, ""]:
        """The key that draws the batches of epoch e by `fold_in(key, e)`."""
        return jax.random.split(jax.random.split(self.key)[1])[0]

    @property
    def step_key(self) -> Key[Array, ""]:
        """The key from which step t draws by `fold_in(key, t)`."""
        return jax.random.split(jax.random.split(self.key)[1])[1]

    def checkpoint_step(self, index: int) -> int:
        """Returns the step of checkpoint `index`."""
        return min(index * self.every, self.steps)


def claim_run(
    key: Key[Array, ""],
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    *,
    start: StartClaim,
    every: int,
    environment: Mapping[str, str],
    batches_sha256: str,
    examples_sha256: str,
) -> Claim:
    """Returns the claim of a run that will start from `key`.

    Args:
      key: that `fit` was given.
      model: the network.
      dataset: [n] examples that it trains on.
      recipe: how it trains.
      start: its initial weights.
      every: steps between two checkpoints.
      environment: device, versions and flags.
      batches_sha256: of the file of batch indices.
      examples_sha256: of the file of the examples' digests.
    """
    return Claim(
        recipe,
        _claim_network(model),
        str(jax.random.key_impl(key)),
        tuple(np.asarray(jax.random.key_data(key)).tolist()),
        start,
        every,
        jax.config.values["jax_default_matmul_precision"],
        claim_data(dataset),
        environment,
        batches_sha256,
        examples_sha256,
    )


def claim_data(dataset: Dataset) -> DataClaim:
    """Returns the size, digests and normalisation of a dataset."""
    x, y = np.asarray(dataset.x), np.asarray(dataset.y)
    return DataClaim(
        x.shape[0], x.shape[1:], sha256_of_array(x), sha256_of_array(y), dataset.normalisation
    )


def example_digests(dataset: Dataset) -> np.ndarray:
    """Returns the first 8 bytes of the SHA-256 of each example's input and label: [n] uint64."""
    x, y = np.asarray(dataset.x), np.asarray(dataset.y, "<i8")
    rows = np.ascontiguousarray(x).reshape(len(x), -1).view(np.uint8)
    digests = [
        hashlib.sha256(row.tobytes() + label.tobytes()).digest()[:8]
        for row, label in zip(rows, y, strict=True)
    ]
    return np.frombuffer(b"".join(digests), "<u8")


def variables_sha256(variables: Variables) -> str:
    """Returns a SHA-256 over names, types, shapes and every byte of a network's variables."""
    digest = hashlib.sha256()
    for name, array in sorted(flatten(variables).items()):
        digest.update(f"{name} {sha256_of_array(array)}\n".encode())
    return digest.hexdigest()


def _claim_network(model: Model) -> NetworkClaim:
    shape, n_classes = tuple(model.input_shape), model.n_classes
    if model.origin is not None:
        name, options = model.origin
        if create(name, input_shape=shape, n_classes=n_classes, **dict(options)) == model:
            return NetworkClaim(name, dict(options), shape, n_classes)
    return NetworkClaim(None, {}, shape, n_classes)
