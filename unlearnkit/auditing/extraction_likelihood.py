"""How much of a text a language network writes when it is given the beginning."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from unlearnkit.auditing._next_tokens import check_texts_of
from unlearnkit.auditing.intervals import mean_and_error
from unlearnkit.base import Audited, Model, Task, Variables
from unlearnkit.kernels import by_chunks
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_at_least

_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class ExtractionLikelihood:
    """Measures which n-grams of a text come back from its prefixes (EL).

    EL_n(x) = 1/(T - n) Σ_{t=1}^{T-n} overlap_n(f(x_≤t), x_>t),
    overlap_n(a, b) = share of the n-grams of a that are among those of b

    with f(x_≤t) the greedy continuation of the first t tokens to the length of the text, of a
    network with the head `tokens`, in evaluation mode. Texts are forgotten where EL is no larger
    than of texts that were never seen, as the test set.

    Attributes:
      n: of the n-grams, >= 1.
      prefixes: how many prefixes of a text are continued, evenly spaced; None for all T - n.
      texts: how many texts of each set are looked at, the first; None for all.

    Example:
      audit = auditing.ExtractionLikelihood(n=10, prefixes=8)
      metrics, curves = audit(key, model, variables, task)

    Source: Jang et al. 2023, equations (1) and (2), after the extraction of Carlini et al. 2021;
    Carlini et al. 2023; n = 10. All prefixes take (T - n) T forward passes of a text, hence
    `prefixes`.
    """

    n: int = 10
    prefixes: int | None = 8
    texts: int | None = 64

    trial: ClassVar[AuditTrial] = AuditTrial(
        tells=("extraction_forget", 1), key_may_not_matter=True, texts=True
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "n")
        for name in ("prefixes", "texts"):
            if getattr(self, name) is not None:
                check_at_least(self, 1, name)

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns the likelihood of the forget and the test set.

        Metrics: `extraction_{forget,test}`, the mean over texts, and of two texts or more its
        standard error `_se`.

        Curves: `extraction_{forget,test}`, [n] of each text.

        Raises:
          ValueError: a network that does not tell every next token, a task or variables that do not
            fit it, or a text of n tokens or fewer.
        """
        pad = check_texts_of(model, variables, task, audit="ExtractionLikelihood")
        metrics, curves = {}, {}
        for name in ("forget", "test"):
            rows = np.asarray(getattr(task, name).x)[: self.texts]
            each = np.array([self._of_text(model, variables, row, pad) for row in rows])
            metrics[f"extraction_{name}"] = float(each.mean())
            if len(each) > 1:
                metrics[f"extraction_{name}_se"] = mean_and_error(each)[1]
            curves[f"extraction_{name}"] = each
        return Audited(metrics, curves)

    def _of_text(
        self, model: Model, variables: Variables, row: Int[np.ndarray, " length"], pad: int
    ) -> float:
        size = int((row != pad).sum())
        if size <= self.n:
            raise ValueError(
                f"a text of {size} tokens has no {self.n}-gram after its first token; lower n, or "
                "leave it out"
            )
        starts = np.arange(1, size - self.n + 1)
        if self.prefixes is not None and self.prefixes < len(starts):
            starts = starts[np.linspace(0, len(starts) - 1, self.prefixes).round().astype(int)]
        written = continue_greedily(model, variables, row, starts, size)
        overlaps = [
            n_gram_overlap(own[start:size], row[start:size], self.n)
            for own, start in zip(written, starts, strict=True)
        ]
        return float(np.mean(overlaps))


def n_gram_overlap(written: Int[np.ndarray, " a"], true: Int[np.ndarray, " b"], n: int) -> float:
    """Returns the share of the n-grams of `written` that are among those of `true`.

    Args:
      written: token ids, n or more.
      true: token ids.
      n: of the n-grams.
    """

    def grams(ids: Int[np.ndarray, " c"]) -> list[bytes]:
        return [ids[i : i + n].tobytes() for i in range(len(ids) - n + 1)]

    own, known = grams(written), set(grams(true))
    return sum(gram in known for gram in own) / len(own)


def continue_greedily(
    model: Model,
    variables: Variables,
    row: Int[np.ndarray, " length"],
    starts: Int[np.ndarray, " p"],
    size: int,
) -> Int[np.ndarray, "p length"]:
    """Returns the text, each time with what the network writes after its first tokens.

    Args:
      model: the network, with the head `tokens`.
      variables: its weights.
      row: token ids.
      starts: how many tokens are kept, for each continuation.
      size: of the text, where a continuation ends.
    """
    pad = model.tokens.pad if model.tokens is not None else 0
    kept = np.where(np.arange(len(row)) < starts[:, None], row, pad).astype(np.int32)

    def part(variables: Variables, x: Array, start: Array) -> Array:
        found: Array = _continue(variables, x, start, jnp.int32(size), model=model)
        return found

    given = (jnp.asarray(kept), jnp.asarray(starts, jnp.int32))
    return np.asarray(by_chunks(part, variables, given, _CHUNK))


@partial(jax.jit, static_argnames="model")
def _continue(variables: Variables, x: Array, start: Array, size: Array, *, model: Model) -> Array:
    """Writes the likeliest token at every place from `start` on, one place after the other."""

    def write(place: Array, x: Array) -> Array:
        likeliest = model.apply(variables, x)[:, place - 1].argmax(-1)
        own = jnp.where(place >= start, likeliest, x[:, place])
        return x.at[:, place].set(own.astype(x.dtype))

    found: Array = jax.lax.fori_loop(start.min(), size, write, x)
    return found
