"""The nouns (`Dataset`, `Task`, `Variables`, `Model`) and the contracts of the verbs.

Every noun is a `NamedTuple` and so a pytree. A verb is a frozen dataclass of hyperparameters that
is called with `(key, model, variables, task)`; the Protocols below say what each kind returns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from unlearnkit.host.arrays import concatenate_rows, take_rows
from unlearnkit.rows import check_rows

Params: TypeAlias = Any
"""A pytree of arrays; nested dicts for the models of this library."""
State: TypeAlias = Any
"""A pytree of arrays."""
Path: TypeAlias = tuple[str, ...]
"""Where a subtree of the parameters stands: the keys from the root to it."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Normalisation:
    """A named, reversible map between pixels in [0, 1] and a network's input.

    x = (pixel - mean) / std, channel by channel. It carries no arrays, so a `Dataset` that holds it
    stays a pytree of `x` and `y` alone, and two datasets normalised differently refuse to be mixed.

    Attributes:
      name: how tables and manifests call it, as `unit`, `symmetric` or `cifar10`.
      mean: one value, or one per channel, in pixel units [0, 1].
      std: likewise, greater than 0.
    """

    name: str = "unit"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std need one value per channel each, got {self.mean} and {self.std}"
            )
        if not all(s > 0 for s in self.std):
            raise ValueError(f"std must be > 0 in every channel, got {self.std}")

    def apply(self, pixels: Float[Array, ...]) -> Float[Array, ...]:
        """Returns the network's input for `pixels` [..., c] in [0, 1]."""
        return (pixels - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def invert(self, x: Float[Array, ...]) -> Float[Array, ...]:
        """Returns the pixels in [0, 1] behind a normalised `x` [..., c]."""
        return x * jnp.asarray(self.std) + jnp.asarray(self.mean)


UNIT = Normalisation()


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Tokens:
    """The vocabulary of a dataset whose inputs are token ids, in the place of a `Normalisation`.

    It carries no arrays either, and datasets of two vocabularies refuse to be mixed.

    Attributes:
      vocabulary: how many tokens there are; ids are 0, ..., vocabulary - 1.
      pad: the id that fills what a text leaves of its row.
    """

    vocabulary: int
    pad: int = 0

    def __post_init__(self) -> None:
        if self.vocabulary < 2:
            raise ValueError(
                f"vocabulary must be >= 2, padding and one token, got {self.vocabulary}"
            )
        if not 0 <= self.pad < self.vocabulary:
            raise ValueError(f"pad must be in 0 … {self.vocabulary - 1}, got {self.pad}")


class Dataset(NamedTuple):
    """Examples and their labels, resident on the device.

    Attributes:
      x: [n, ...] float32, normalised; images are [n, height, width, channels]. Or [n, length]
        integer token ids.
      y: [n] int32 class labels.
      normalisation: how `x` was made from pixels in [0, 1], or which `Tokens` it holds.
    """

    x: Float[Array, "n ..."] | Int[Array, "n length"]
    y: Int[Array, " n"]
    normalisation: Normalisation | Tokens = UNIT

    @property
    def size(self) -> int:
        """The number of examples."""
        return int(self.y.shape[0])

    def take(
        self,
        indices: Int[Array | np.ndarray, " m"] | Bool[Array | np.ndarray, " n"] | Sequence[int],
    ) -> Dataset:
        """Returns the examples at `indices`, in that order.

        Args:
          indices: [m] integers from 0 that may repeat, or [n] booleans, true where an example is
            taken. Under tracing their values are not looked at.

        Raises:
          TypeError: neither integers nor booleans.
          ValueError: an index that is negative or beyond the data, or booleans of another number.
        """
        rows = check_rows(indices, self.size)
        found: Dataset = jax.tree.map(lambda array: take_rows(array, rows), self)
        return found


class SoftDataset(NamedTuple):
    """Examples whose labels are real vectors, as forgers that leave the domain make them.

    Attributes:
      x: [n, ...] float32, normalised.
      y: [n, c] weights of the classes; a distribution or not.
      normalisation: how `x` was made from pixels in [0, 1].
    """

    x: Float[Array, "n ..."]
    y: Float[Array, "n c"]
    normalisation: Normalisation = UNIT

    @property
    def size(self) -> int:
        """The number of examples."""
        return int(self.y.shape[0])


def concatenate(*datasets: Dataset) -> Dataset:
    """Returns one dataset with the examples of all, in order."""
    found: Dataset = jax.tree.map(lambda *arrays: concatenate_rows(arrays), *datasets)
    return found


class Task(NamedTuple):
    """The question of unlearning: which examples go, which stay, and which were never seen.

    Attributes:
      retain: training examples that stay.
      forget: training examples to be forgotten.
      validation: unseen examples for choosing hyperparameters and for the unlearner's own auditor.
      test: unseen examples for the reported audits only.
    """

    retain: Dataset
    forget: Dataset
    validation: Dataset
    test: Dataset

    @property
    def train(self) -> Dataset:
        """All training examples: retain, then forget."""
        return concatenate(self.retain, self.forget)


class Variables(NamedTuple):
    """A network's trained weights and its untrained state.

    Attributes:
      params: trained weights, a nested dict of arrays.
      state: what is carried but not trained, as BatchNorm's running statistics; empty for most.
    """

    params: Params
    state: State = {}  # noqa: RUF012 (an empty pytree, never mutated)


class Model(NamedTuple):
    """A network as pure functions.

    Equal models hash alike, so a model may be a static argument of `jax.jit`: build the callables
    once, or make them hashable values as `models.from_linen` does, and nothing is compiled twice.

    Attributes:
      init: key -> Variables, a fresh initialisation.
      apply: (variables, x [n, ...]) -> logits [n, c], evaluation mode.
      apply_train: (variables, x [n, ...], key) -> (logits [n, c], state), training mode: batch
        statistics and dropout.
      layers: parameter groups from the input to the output; each group holds the paths of the
        subtrees of `params` that belong to one convolution or linear layer, its norm included.
      input_shape: the shape of one example.
      n_classes: the number of logits.
      origin: the name and the options by which `models.create` makes it, or None; a log of
        training names the network so.
      input_dtype: the name of the inputs' dtype; an integer one for a network that takes tokens. Of
        a floating-point one only the kind counts: a network computes at the precision of what it
        is given, so that float32 stands for float64 too where JAX has x64 on.
      embed: (variables, x [n, length]) -> the tokens' vectors [n, length, width], of a network that
        has such vectors; None otherwise.
      apply_embedded: (variables, embedded [n, length, width], x, key=None) -> logits, what `apply`
        makes of these vectors; padding is read from x, and vectors there change nothing. With a
        key in training mode. None otherwise.
      tokens: the vocabulary that the network has vectors for, and the id that it takes for padding;
        None where it does not say.
    """

    init: Callable[[Key[Array, ""]], Variables]
    apply: Callable[[Variables, Array], Float[Array, "n c"]]
    apply_train: Callable[[Variables, Array, Key[Array, ""]], tuple[Float[Array, "n c"], State]]
    layers: tuple[tuple[Path, ...], ...]
    input_shape: tuple[int, ...]
    n_classes: int
    origin: tuple[str, tuple[tuple[str, Any], ...]] | None = None
    input_dtype: str = "float32"
    embed: Callable[[Variables, Array], Float[Array, "n length width"]] | None = None
    apply_embedded: Callable[..., Float[Array, "n ..."]] | None = None
    tokens: Tokens | None = None

    @property
    def takes_tokens(self) -> bool:
        """Whether inputs are token ids."""
        return jnp.issubdtype(jnp.dtype(self.input_dtype), jnp.integer)


class SolveInfo(NamedTuple):
    """How a linear solve of A x = b ended.

    Attributes:
      residual: ‖b - A x‖ / ‖b‖, recomputed from x at the end (0 where b = 0); infinite where x is
        out of the range of its dtype.
      steps: iterations taken.
      converged: whether residual <= tol.
      curvature: the least p·Ap / p·p met, NaN where the solver meets none.
    """

    residual: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]
    curvature: Float[Array, ""]


class Cost(NamedTuple):
    """What a run cost.

    Attributes:
      example_gradients: one forward and backward pass of one example = 1, an HVP of one example
        = 2, a forward pass alone = 1/3.
      seconds: wall time without compilation.
      compile_seconds: wall time of tracing and compilation.
    """

    example_gradients: float
    seconds: float
    compile_seconds: float = 0.0

    def plus(self, other: Cost) -> Cost:
        """Returns what both cost together."""
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


class TrainInfo(NamedTuple):
    """How a training run went.

    Attributes:
      history: per epoch, by name: at least `loss` and `accuracy` on the training batches.
      cost: what it took.
    """

    history: Mapping[str, Array]
    cost: Cost


class UnlearnInfo(NamedTuple):
    """How an unlearning run went.

    Attributes:
      history: per epoch, by name.
      cost: what it took.
      solves: the convergence of every linear solve, by name.
      adapted: what was chosen because the data or the network did not allow the default, by name:
        `batch_size`, `forget_batch_size`, `folds` and `k` are the numbers used; `statistics` and
        `forget_statistics` are `running` where a batch was too small for BatchNorm's own. Empty
        where everything ran as the defaults say.
    """

    history: Mapping[str, Array]
    cost: Cost
    solves: Mapping[str, SolveInfo] = {}
    adapted: Mapping[str, int | str] = {}


class Trained(NamedTuple):
    """A trained network and how it came about."""

    variables: Variables
    info: TrainInfo


class Unlearned(NamedTuple):
    """A network after unlearning and how it came about."""

    variables: Variables
    info: UnlearnInfo


FROM_SCRATCH = -1
"""In the place of the row that a poison was made of, where it was made of none."""


class Poisoned(NamedTuple):
    """A poisoned training set.

    Attributes:
      dataset: [n] examples, poisons in place.
      is_poison: [n] which of them are poisons.
      info: what is needed to score the attack later (noise, targets), and its cost.
    """

    dataset: Dataset
    is_poison: Bool[Array, " n"]
    info: Any


class DefenceInfo(NamedTuple):
    """How a defence went.

    Attributes:
      cost: what it took, any training on the way included.
      history: per round of the defence, by name; empty where there are no rounds.
      solves: the convergence of every linear solve and eigenvector, by name.
    """

    cost: Cost
    history: Mapping[str, Array] = {}
    solves: Mapping[str, SolveInfo] = {}


class Defended(NamedTuple):
    """Which examples of a training set a defence trusts.

    Attributes:
      keep: [n] which examples stay.
      scores: [n] how suspicious each is; larger is more so.
      info: how the defence went.
    """

    keep: Bool[Array, " n"]
    scores: Float[Array, " n"]
    info: DefenceInfo


class Forged(NamedTuple):
    """A forged mini-batch.

    Attributes:
      batch: the batch that stands in for the true one.
      error: ‖w' - w‖₂ between the steps that the two batches make.
      info: how the search went.
    """

    batch: Dataset | SoftDataset
    error: Float[Array, ""]
    info: Any


class Audited(NamedTuple):
    """The verdict of an audit.

    Attributes:
      metrics: scalars by name.
      curves: arrays for plots by name, as the two columns of a ROC curve.
    """

    metrics: Mapping[str, float]
    curves: Mapping[str, Any] = {}


OnEpoch: TypeAlias = Callable[[int, Mapping[str, Any]], None]
"""Called on the host after each epoch with its number (from 1) and its metrics."""
OnSnapshot: TypeAlias = Callable[[int, Variables], None]
"""Called on the host after each epoch with its number (from 1) and the network as it would be
returned now. Its arrays are given away to the next epoch: copy what is kept.
"""


@runtime_checkable
class Unlearner(Protocol):
    """Makes trained variables forget `task.forget`."""

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned:
        """Returns variables that have forgotten, and how that went; the given ones are untouched.

        Args:
          key: drives all that is random; the same key gives the same bits.
          model: the network.
          variables: trained on all of `task.train`.
          task: what to forget and what to keep; validation and test are for measuring alone.
          on_epoch: called after each epoch.
        """
        ...


@runtime_checkable
class Attack(Protocol):
    """Poisons `task.train`."""

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the poisoned training set, which of it is poison, and how it was made.

        Args:
          key: drives all that is random; the same key gives the same bits.
          model: the victim's network.
          variables: trained on the clean `task.train`.
          task: `train` is what is poisoned; its division into retain and forget is not read.
        """
        ...


@runtime_checkable
class Defence(Protocol):
    """Says which examples of a training set to keep, given a network trained on all of it."""

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, dataset: Dataset
    ) -> Defended:
        """Returns which examples to keep, with a score of each.

        Args:
          key: drives all that is random; the same key gives the same bits.
          model: the network.
          variables: trained on all of `dataset`.
          dataset: [n] examples, some of them perhaps poisons.
        """
        ...


@runtime_checkable
class RobustTrainer(Protocol):
    """Defends by the way it trains, and keeps all examples.

    Its method is called `fit`, so that `isinstance` tells it from a `Defence`.
    """

    def fit(
        self,
        key: Key[Array, ""],
        model: Model,
        dataset: Dataset,
        recipe: Any,
        *,
        variables: Variables | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> Trained:
        """Returns a network trained from `variables`, or from a fresh initialisation.

        Args:
          key: its halves initialise the network and drive the run.
          model: the network.
          dataset: [n] examples, some of them perhaps poisons.
          recipe: how to train, an `unlearnkit.training.Recipe`.
          variables: where to start; None starts from a fresh initialisation. Only a study with a
            start gives them: a trainer may leave them out otherwise.
          on_epoch: called after each epoch.
        """
        ...


@runtime_checkable
class Audit(Protocol):
    """Measures a model against a task."""

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns scalars by name, and curves for plots.

        Args:
          key: drives all that is random; the same key gives the same bits.
          model: the network.
          variables: what is judged, as an unlearner left it.
          task: what was to be forgotten and kept, and the data to judge by.
        """
        ...


@runtime_checkable
class Forger(Protocol):
    """Forges the mini-batch of one logged training step from allowed examples."""

    def __call__(self, key: Key[Array, ""], model: Model, step: Any, allowed: Dataset) -> Forged:
        """Returns a batch of allowed examples that takes nearly the same step.

        Args:
          key: drives all that is random; the same key gives the same bits.
          model: a network without state.
          step: to be forged, an `unlearnkit.forging.Step`.
          allowed: the examples that may be used.
        """
        ...
