"""Random poisons of the size of another attack's: its control."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import FROM_SCRATCH, Attack, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.placing import Placement, PoisonInfo, perturbation, place, warn
from unlearnkit.validation import check_continuous

_TRIES = 20
"""Of scaling and clipping to the box."""
_LEAST = 1e-30
"""In the place of the norm of a poison that the attack has not moved."""
_SHORT = 0.99
"""A share of the norm below this does not count as the same."""


@dataclasses.dataclass(frozen=True)
class SameNormControl:
    """Makes the poisons of an attack, and puts noise of their norms in the place of their patterns.

    x_i = x_base(i) + ‖Δ_i‖₂ u_i,   u_i uniform on the sphere

    The base images, labels, places and norms (of an image, in the units of the network) are the
    attack's, as are targets, so that both are judged alike. Where it has a box, noise is clipped to
    it and scaled up again until the norm is met.
    What an attack does beyond its control is the doing of its patterns, not of their size.

    Attributes:
      attack: whose control this is; it must perturb clean examples.

    Example:
      attack = poisoning.GradientCanceling(budget=poisoning.Budget(0.05))
      study = studies.Study(
          data=studies.Pair(train, test),
          networks=model,
          recipes=training.Recipe(),
          attacks={"canceling": attack, "control": poisoning.SameNormControl(attack)},
          paired=True,  # so that both have the same key
      )

    Cost: that of the attack.
    """

    attack: Attack

    def __post_init__(self) -> None:
        if isinstance(self.attack, type) or not isinstance(self.attack, Attack):
            raise TypeError(f"attack must be an attack, got {self.attack!r:.100}")
        if isinstance(self.attack, SameNormControl):
            raise ValueError("attack must not be a control itself: it has the norms already")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with the control's poisons.

        Raises:
          ValueError: what the attack refuses, or poisons without a norm to match.
          DivergedError: the attack diverged.
        """
        noise_key = jax.random.fold_in(jax.random.clone(key), 1)
        poisoned = self.attack(key, model, variables, task)
        return same_norm(noise_key, poisoned, task.train)


def same_norm(key: Key[Array, ""], poisoned: Poisoned, clean: Dataset) -> Poisoned:
    """Returns a poisoned set with noise in the place of each perturbation, of the same norm.

    Args:
      key: of the noise.
      poisoned: by an attack that perturbs clean examples, with a `PoisonInfo`.
      clean: the training set that was attacked.

    Raises:
      ValueError: a poison that was made of no clean example, or poisons that differ from theirs in
        the label alone, so that there is no norm to match.
    """
    normalisation = check_continuous(clean, method="SameNormControl")
    info = poisoned.info
    base = np.asarray(getattr(info, "base", [FROM_SCRATCH]))
    if np.any(base == FROM_SCRATCH):
        raise ValueError(
            "there is no norm to match: these poisons were made of no clean example; a control "
            "needs an attack that perturbs them, as GradientCanceling"
        )
    delta = perturbation(poisoned, clean)
    norms = _norms(delta)
    if not bool(jnp.any(norms > 0)):
        raise ValueError(
            "there is no norm to match: these poisons have the pixels of their clean examples; a "
            "control needs an attack that changes pixels"
        )
    images = clean.x[base]
    bounds: Bounds = info.bounds
    region = dataclasses.replace(bounds, radius=None).region(images, normalisation)
    noise = jax.random.normal(key, delta.shape, delta.dtype)
    x = images
    for _ in range(_TRIES if bounds.box is not None else 1):
        noise = noise * _by_row(norms / jnp.maximum(_norms(noise), _LEAST), noise)
        x = region.project(images + noise)
        noise = x - images
    reached = np.asarray(_norms(x - images) / norms)[np.asarray(norms > 0)]
    if bounds.box is not None and reached.min() < _SHORT:
        warn(
            f"noise in the box has {reached.min():.2f} of a poison's norm: the poisons are as "
            "large as the box allows, and their control is smaller"
        )
    rows = np.flatnonzero(np.asarray(poisoned.is_poison))
    placement: Placement = "add" if poisoned.dataset.size > clean.size else "perturb"
    dataset, is_poison = place(clean, x, poisoned.dataset.y[rows], info.base, placement)
    aims = {n: info.extras[n] for n in ("targets", "adversarial_class") if n in info.extras}
    wide = dataclasses.replace(bounds, radius=None)
    own = PoisonInfo(info.base, wide, {}, info.cost, extras=aims)
    return Poisoned(dataset, is_poison, own)


def _norms(x: Array) -> Array:
    found: Array = jnp.linalg.norm(x.reshape(x.shape[0], -1), axis=1)
    return found


def _by_row(factors: Array, like: Array) -> Array:
    found: Array = factors.reshape(-1, *(1,) * (like.ndim - 1))
    return found
