"""Checks data before anything is traced; each message has the value, the rule and the remedy.

The checks run on concrete arrays, numpy's or JAX's, where they live: an array on an accelerator is
reduced there and only the verdict comes back.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Collection
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from unlearnkit.base import Dataset, Model, Normalisation, SoftDataset, Task, Tokens, Variables
from unlearnkit.host.arrays import on_host
from unlearnkit.validation.separability import check_logits, check_rows_alone
from unlearnkit.validation.shared_rows import count_shared, range_of

FAR = 12.0
"""Pixels are in [0, 1]; standardised ones of a wrong name, and images with strong noise on them,
stay below this; bytes, and the 0 to 16 of raw digits, do not."""
SIDE = 4
"""Of the smallest image that is recognised flattened."""
SHARED = 0.01
"""The share of test examples among the training examples above which to warn. The exact copies
across the two parts of MNIST, CIFAR-10, CIFAR-100 and the like are fewer."""


class InputWarning(UserWarning):
    """An input that is accepted, but is more likely a mistake than meant."""


def check_at_least(settings: Any, least: float, *names: str) -> None:
    """Raises ValueError if a named attribute of `settings` is below `least`, or NaN.

    Args:
      settings: the object whose attributes are checked.
      least: the bound, which they may reach.
      names: of the attributes.
    """
    for name in names:
        value = getattr(settings, name)
        if not value >= least:
            raise ValueError(f"{name} must be >= {least:g}, got {value}")


def check_above(settings: Any, bound: float, *names: str) -> None:
    """Raises ValueError if a named attribute of `settings` is not above `bound`.

    Args:
      settings: the object whose attributes are checked.
      bound: which they must exceed.
      names: of the attributes.
    """
    for name in names:
        value = getattr(settings, name)
        if not value > bound:
            raise ValueError(f"{name} must be > {bound:g}, got {value}")


def check_known(kind: str, value: Any, known: Collection[str]) -> None:
    """Raises ValueError if `value` is none of the known ones.

    Args:
      kind: what the value names, for the message.
      value: to be checked.
      known: the names that there are.
    """
    if value not in known:
        raise ValueError(f"unknown {kind} {value!r}; known: {', '.join(known)}")


def check_choice(name: str, value: Any, alternatives: Any) -> None:
    """Raises ValueError if `value` is none of the `alternatives`, a `Literal`.

    Args:
      name: of the argument, for the message.
      value: to be checked.
      alternatives: the `Literal` of its names.
    """
    known = get_args(alternatives)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def check_labels(y: Any, *, name: str = "dataset", n_classes: int | None = None) -> None:
    """Raises an error if labels are not class indices.

    Args:
      y: [n] labels.
      name: what the message calls the data.
      n_classes: labels must be smaller; None asks only for >= 0.

    Raises:
      TypeError: labels that are not integers (integral floats and booleans too).
      ValueError: not one label per example, or a label outside its range.
    """
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(
            f"labels of {name} must be integers, got {y.dtype}; "
            "convert class indices with y.astype(numpy.int32)"
        )
    if y.ndim != 1:
        raise ValueError(
            f"labels of {name} must have shape [n], got {list(y.shape)}; "
            "one-hot labels convert with y.argmax(axis=-1), columns with y.reshape(-1)"
        )
    if y.shape[0] == 0:
        return
    y = on_host(y)
    least, most = int(y.min()), int(y.max())
    if least < 0:
        raise ValueError(
            f"labels of {name} must be >= 0, got {least} at index {int(y.argmin())}; "
            "remove the examples without a label"
        )
    if n_classes is not None and most >= n_classes:
        raise ValueError(
            f"labels of {name} must be < {n_classes}, the number of classes, "
            f"got {most} at index {int(y.argmax())}; "
            "number the classes from 0 or build the model with more of them"
        )


def check_finite(x: Any, *, name: str = "dataset") -> None:
    """Raises ValueError if `x` holds NaN or infinity; the message gives the first index.

    Args:
      x: an array of any shape.
      name: what the message calls the data.

    Raises:
      ValueError: a value that is not finite.
    """
    x = on_host(x)
    finite = jnp.isfinite(x) if isinstance(x, jax.Array) else np.isfinite(x)
    if bool(finite.all()):
        return
    where = np.argwhere(~np.asarray(finite))
    first = tuple(int(i) for i in where[0])
    raise ValueError(
        f"x of {name} must be finite, got {float(x[first])} at index {first} "
        f"({len(where)} such values); remove or repair these examples"
    )


def all_finite(tree: Any) -> bool:
    """Whether no array of a pytree, of numpy or JAX, holds NaN or infinity."""
    leaves = [on_host(leaf) for leaf in jax.tree.leaves(tree)]
    return all(
        bool((jnp if isinstance(leaf, jax.Array) else np).isfinite(leaf).all()) for leaf in leaves
    )


def check_dataset(dataset: Dataset, *, name: str = "dataset") -> None:
    """Raises an error if a dataset cannot be trained on or evaluated with.

    Args:
      dataset: x [n, ...] and y [n], of numpy or JAX.
      name: what the message calls it, as `forget`.

    Raises:
      TypeError: x is not floating point, tokens are not integers, or y is not.
      ValueError: no examples, lengths that differ, labels below 0, NaN or infinity; tokens that are
        not [n, length], or outside of their vocabulary.

    Warns:
      InputWarning: pixels far outside of [0, 1] under the normalisation, as 0 … 255.
    """
    x, y, made = dataset.x, dataset.y, dataset.normalisation
    if isinstance(made, Tokens):
        check_tokens(x, made, name=name)
    elif not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"x of {name} must be floating point, got {x.dtype}; divide uint8 pixels by 255 and "
            "apply the dataset's normalisation, or say that these are token ids by "
            "Dataset(x, y, Tokens(vocabulary=…, pad=…))"
        )
    check_labels(y, name=name)
    if x.ndim < 2 or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"x of {name} must be [n, ...] with one example per label, "
            f"got x {list(x.shape)} and y {list(y.shape)}"
        )
    if x.size == 0:
        raise ValueError(f"{name} must hold at least one example, got x {list(x.shape)}")
    if not isinstance(made, Tokens):
        check_finite(x, name=name)
        _warn_of_range(x, made, name)


def check_tokens(x: Array | np.ndarray, tokens: Tokens, *, name: str = "dataset") -> None:
    """Raises an error if inputs are not token ids of a vocabulary.

    Args:
      x: of numpy or JAX.
      tokens: the vocabulary.
      name: what the message calls the data.

    Raises:
      TypeError: not integers.
      ValueError: not [n, length], or an id that the vocabulary does not have.
    """
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(
            f"x of {name} must be integer token ids, got {x.dtype}; convert whole numbers with "
            "x.astype(numpy.int32), or give the Dataset a Normalisation in the place of Tokens"
        )
    if x.ndim != 2:
        raise ValueError(
            f"token ids of {name} must be [n, length], got the shape {list(x.shape)}; "
            f"fill shorter texts with the pad id {tokens.pad}"
        )
    if x.size == 0:
        return
    x = on_host(x)
    least, most = int(x.min()), int(x.max())
    if least < 0 or most >= tokens.vocabulary:
        wrong = least if least < 0 else most
        row, place = (int(i) for i in np.argwhere(np.asarray(x) == wrong)[0])
        raise ValueError(
            f"token ids of {name} must be in 0 … {tokens.vocabulary - 1}, got {wrong} at index "
            f"({row}, {place}); fill with the pad id {tokens.pad}, or give the size of the whole "
            "vocabulary"
        )


def check_continuous(dataset: Dataset | SoftDataset, *, method: str) -> Normalisation:
    """Returns how inputs were normalised; raises ValueError if they are token ids.

    For methods that move inputs, by a gradient or by noise: between two ids there is nothing.

    Args:
      dataset: whose inputs are to be moved.
      method: what the message calls the method.

    Raises:
      ValueError: token ids.

    Example:
      normalisation = check_continuous(task.train, method="GaussianPoison")
    """
    made = dataset.normalisation
    if isinstance(made, Tokens):
        raise ValueError(
            f"{method} needs inputs that are real numbers, as images, for it moves them or takes "
            f"derivatives in them; got token ids of a vocabulary of {made.vocabulary}: choose a "
            "method that leaves inputs as they are"
        )
    return made


def _warn_of_range(x: Array | np.ndarray, normalisation: Normalisation, name: str) -> None:
    low, high, whole = range_of(x)
    ends = [
        value * std + mean
        for value in (low, high)
        for mean, std in zip(normalisation.mean, normalisation.std, strict=True)
    ]
    # Features without a shape, as ages or incomes, may be anything; many in whole numbers of
    # 0 … 255 are flattened pixels.
    images = x.ndim > 2 and max(map(abs, ends)) > FAR
    bytes_in_rows = x.ndim == 2 and x.shape[1] >= SIDE**2 and whole and max(ends) > FAR
    if images or bytes_in_rows:
        warnings.warn(
            f"x of {name} holds values from {low:g} to {high:g}, which the normalisation "
            f"{normalisation.name!r} takes for pixels from {min(ends):g} to {max(ends):g}, where "
            "0 to 1 is expected; divide pixels of 0 … 255 by 255, or give the Dataset the "
            "normalisation of these units, as Normalisation('bytes', (0.0,), (1 / 255,))",
            InputWarning,
            stacklevel=3,
        )


def check_held_out(train: Collection[Dataset], test: Dataset, *, name: str = "test") -> None:
    """Warns if held-out examples are among the training examples.

    An audit that compares members with non-members would compare such examples with themselves.
    Rows are compared by a hash of their inputs to the last bit; up to a percent gives no warning.

    Args:
      train: the parts of the training set.
      test: the held-out examples.
      name: what the message calls them.

    Warns:
      InputWarning: more than 1 % of the smaller of the two sets is in both.
    """
    shared, of = count_shared([test.x], [part.x for part in train])
    if shared > SHARED * of:
        warnings.warn(
            f"{shared} of {of} examples are in both the {name} set and the training set "
            f"({test.size} and {sum(part.size for part in train)} examples): what is measured on "
            f"them is not measured on unseen data; remove the copies, or hold out other examples",
            InputWarning,
            stacklevel=3,
        )


def check_compatible(dataset: Dataset, model: Model, *, name: str = "dataset") -> None:
    """Raises ValueError if the model cannot take the shape, the kind or the labels of the data.

    Args:
      dataset: x [n, *model.input_shape] and y [n] < model.n_classes.
      model: the network.
      name: what the message calls the data.

    Raises:
      ValueError: another shape of an example, tokens for a network of real inputs or the other way
        round, or a label that has no logit.
    """
    shape = tuple(dataset.x.shape[1:])
    if shape != tuple(model.input_shape):
        raise ValueError(
            f"an example of {name} has shape {shape}, but the model takes "
            f"{tuple(model.input_shape)}; build the model with input_shape={shape}"
        )
    if isinstance(dataset.normalisation, Tokens) != model.takes_tokens:
        wanted = "float32" if model.takes_tokens else "int32"
        raise ValueError(
            f"x of {name} is {dataset.x.dtype}, but the model takes {model.input_dtype} inputs; "
            f"build the model with input_dtype={wanted!r}"
        )
    if isinstance(dataset.normalisation, Tokens) and model.tokens is not None:
        _check_vocabulary(dataset, dataset.normalisation, model.tokens, name)
    check_labels(dataset.y, name=name, n_classes=model.n_classes)


def _check_vocabulary(dataset: Dataset, own: Tokens, known: Tokens, name: str) -> None:
    """Raises ValueError if a network has no vectors for the tokens, or takes another for padding.

    Args:
      dataset: [n, length] token ids.
      own: of the dataset.
      known: of the network.
      name: what the message calls the data.
    """
    if own.vocabulary > known.vocabulary:
        raise ValueError(
            f"{name} has ids of a vocabulary of {own.vocabulary} tokens, but the model's embedding "
            f"has {known.vocabulary} rows; build the model with vocabulary={own.vocabulary}, or "
            "take the tokenizer that belongs to it"
        )
    if own.pad != known.pad:
        raise ValueError(
            f"{name} is filled with the id {own.pad}, but the model takes {known.pad} for padding; "
            f"build the model with pad_id={own.pad}"
        )
    hidden = np.flatnonzero(np.all(np.asarray(on_host(dataset.x)) == own.pad, 1))
    if hidden.size:
        raise ValueError(
            f"row {hidden[0]} of {name} is padding only, of which the model sees nothing "
            f"({hidden.size} of {dataset.size} rows); leave empty texts out"
        )


def check_embedding(model: Model, *, method: str) -> None:
    """Raises ValueError if a network has no vectors of tokens that a method could move.

    Args:
      model: the network.
      method: what the message calls the method.

    Raises:
      ValueError: a network without `embed` and `apply_embedded`.

    Example:
      check_embedding(model, method="GaussianPoison")
    """
    if model.embed is None or model.apply_embedded is None:
        raise ValueError(
            f"{method} moves the vectors of tokens, or takes derivatives in them, but the model "
            "does not say what they are; give it embed and apply_embedded, as those of "
            "models.transformer have them"
        )


def check_task(task: Task, model: Model) -> None:
    """Raises an error if a part of the task is invalid, or does not fit the model.

    Args:
      task: all four parts hold at least one example, normalised alike.
      model: the network.

    Raises:
      TypeError: see `check_dataset`.
      ValueError: see `check_dataset` and `check_compatible`; parts normalised differently.
    """
    for name, part in task._asdict().items():
        check_dataset(part, name=name)
        check_compatible(part, model, name=name)
        if part.normalisation != task.retain.normalisation:
            raise ValueError(
                f"{name} is normalised as {part.normalisation}, but retain as "
                f"{task.retain.normalisation}; load both with one normalisation or vocabulary"
            )


def check_variables(variables: Variables, model: Model) -> None:
    """Raises ValueError if weights are not those of this network.

    Args:
      variables: of the structure and shapes of `model.init`.
      model: the network.

    Raises:
      ValueError: an array that is missing, extra or of another shape, by its name; a network whose
        output at an input depends on the other inputs of its batch, or is made of probabilities
        (asked once per model on inputs made up for it, not of models of this library).
    """
    expected, found = _init_shapes(model), _named_shapes(variables)
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if wrong:
        first = wrong[0]
        raise ValueError(
            f"variables do not fit the model: {first} is {found.get(first, 'missing')}, "
            f"the model has {expected.get(first, 'none')} ({len(wrong)} arrays differ); "
            "use variables that this model was trained to"
        )
    if model.origin is None:
        make = _made_up_tokens if model.takes_tokens else _made_up_inputs
        inputs = make(tuple(model.input_shape))
        check_rows_alone(model.apply, variables, inputs, what="the model in evaluation mode")
        check_logits(model.apply, variables, inputs)


@functools.lru_cache(maxsize=16)
def _made_up_inputs(shape: tuple[int, ...]) -> np.ndarray:
    """Returns three inputs of different size."""
    drawn = np.random.default_rng(0).uniform(0, 1, (3, *shape))
    found: np.ndarray = (drawn * np.array([1.0, 3.0, 9.0]).reshape(3, *(1,) * len(shape))).astype(
        np.float32
    )
    return found


@functools.lru_cache(maxsize=16)
def _made_up_tokens(shape: tuple[int, ...]) -> np.ndarray:
    """Returns three different inputs of the ids 0 to 2."""
    drawn = np.random.default_rng(0).integers(0, 3, (3, *shape), np.int32)
    drawn[..., -1] = np.arange(3).reshape(3, *(1,) * (len(shape) - 1))
    return drawn


@functools.lru_cache(maxsize=64)
def _init_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return _named_shapes(jax.eval_shape(model.init, jax.random.key(0)))


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree by their path, as `params/conv/kernel`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _named_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in named_leaves(tree).items()}
