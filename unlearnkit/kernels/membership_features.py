"""The features of an example that membership attacks use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from unlearnkit.validation import check_known

FeatureName = Literal[
    "loss", "confidence", "entropy", "modified_entropy", "margin", "probabilities", "logits",
    "logits_loss",
]  # fmt: skip

_Feature = Callable[[Float[Array, "n c"], Int[Array, " n"]], Float[Array, "n d"]]


def membership_features(
    name: FeatureName, logits: Float[Array, "n c"], labels: Int[Array, " n"]
) -> Float[Array, "n d"]:
    """Returns one row of features per example, d = 1 for all but the last three.

    These have a column for each of the c classes, the last one a column more.

    They are differentiable in the logits, for an unlearner that answers its auditor.

    With p = softmax(logits) and y the label:
      loss              -log p_y
      confidence        p_y
      entropy           -Σ_c p_c log p_c
      modified_entropy  -(1 - p_y) log p_y - Σ_{c≠y} p_c log(1 - p_c)
      margin            log p_y / (1 - p_y) = z_y - logsumexp_{c≠y} z_c
      probabilities     p
      logits            z
      logits_loss       z, then -log p_y

    Args:
      name: which feature.
      logits: z, in evaluation mode.
      labels: y.

    Raises:
      ValueError: an unknown feature.

    Example:
      seen = kernels.membership_features("probabilities", apply(params, x), y)  # [n, d]

    Source: Song & Mittal 2021 (entropy, modified entropy), Carlini et al. 2022 (margin), Di et al.
    2024, §3 and §4.1 (loss, probabilities, logits), and its public code (logits_loss).
    """
    check_known("feature", name, FEATURES)
    return FEATURES[name](logits, labels)


def cross_entropy_losses(
    logits: Float[Array, "n c"], labels: Int[Array, " n"]
) -> Float[Array, " n"]:
    """Returns -log p_y of every example.

    It is softplus(-margin), which tells losses apart that a log-softmax in float32 rounds to 0.

    Example:
      losses = kernels.cross_entropy_losses(apply(params, x), y)  # [n], in nats
    """
    return jax.nn.softplus(-margins(logits, labels))


def margins(logits: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """Returns z_y - logsumexp_{c≠y} z_c, the logit of p_y without its cancellation.

    Example:
      sure = kernels.margins(apply(params, x), y)  # [n], f_y - logsumexp of the others
    """
    others = jnp.where(_is_label(logits, labels), -jnp.inf, logits)
    return _pick(logits, labels) - jax.nn.logsumexp(others, axis=-1)


def _confidence(logits: Array, labels: Array) -> Array:
    return jnp.exp(_pick(jax.nn.log_softmax(logits), labels))


def _entropy(logits: Array, labels: Array) -> Array:
    log_p = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def _modified_entropy(logits: Array, labels: Array) -> Array:
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    log_not_p = jnp.log1p(-jnp.minimum(p, 1 - jnp.finfo(p.dtype).epsneg))
    terms = jnp.where(_is_label(logits, labels), (1 - p) * log_p, p * log_not_p)
    return -jnp.sum(terms, axis=-1)


def _pick(values: Array, labels: Array) -> Array:
    return jnp.take_along_axis(values, labels[:, None], axis=-1)[:, 0]


def _is_label(logits: Array, labels: Array) -> Array:
    return jnp.arange(logits.shape[-1]) == labels[:, None]


FEATURES: dict[str, _Feature] = {
    "loss": lambda z, y: cross_entropy_losses(z, y)[:, None],
    "confidence": lambda z, y: _confidence(z, y)[:, None],
    "entropy": lambda z, y: _entropy(z, y)[:, None],
    "modified_entropy": lambda z, y: _modified_entropy(z, y)[:, None],
    "margin": lambda z, y: margins(z, y)[:, None],
    "probabilities": lambda z, y: jax.nn.softmax(z),
    "logits": lambda z, y: z,
    "logits_loss": lambda z, y: jnp.column_stack([z, cross_entropy_losses(z, y)]),
}

MEMBER_SIGNS: dict[str, float] = {
    "loss": -1.0,
    "confidence": 1.0,
    "entropy": -1.0,
    "modified_entropy": -1.0,
    "margin": 1.0,
}
"""What turns a feature that is one number into a score that is larger for members."""
