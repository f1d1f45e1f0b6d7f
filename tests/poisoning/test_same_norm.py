"""Random poisons of the norms of another attack's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.base import Poisoned
from unlearnkit.poisoning import (
    Bounds,
    Budget,
    GaussianPoison,
    GradientCanceling,
    GradPC,
    LabelFlip,
    PoisonWarning,
    SameNormControl,
    perturbation,
    same_norm,
)

KEY = jax.random.key(0)
ATTACK = GradientCanceling(Budget(0.2), corruption=GradPC(radius=0.3), steps=40)


def norms(poisoned, clean):
    delta = np.asarray(perturbation(poisoned, clean))
    return np.linalg.norm(delta.reshape(len(delta), -1), axis=1)


@pytest.mark.parametrize("bounds", [Bounds(box=None), Bounds(radius=0.2)], ids=["free", "box"])
@pytest.mark.parametrize("placement", ["add", "perturb"])
def test_all_but_the_pattern_is_the_attack_s(linear, bounds, placement):
    attack = dataclasses.replace(ATTACK, bounds=bounds, placement=placement, steps=10)
    poisoned, control = attack(KEY, *linear), SameNormControl(attack)(KEY, *linear)
    np.testing.assert_array_equal(control.info.base, poisoned.info.base)
    np.testing.assert_array_equal(control.is_poison, poisoned.is_poison)
    np.testing.assert_array_equal(control.dataset.y, poisoned.dataset.y)
    np.testing.assert_allclose(
        norms(control, linear.clean), norms(poisoned, linear.clean), rtol=0.011
    )
    ways = [np.asarray(perturbation(p, linear.clean)).ravel() for p in (poisoned, control)]
    assert abs(ways[0] @ ways[1]) < 0.3 * np.linalg.norm(ways[0]) * np.linalg.norm(ways[1])
    if bounds.box is not None:
        x = np.asarray(control.dataset.x[control.is_poison])
        assert 0 <= x.min() <= x.max() <= 1


def test_keys_matter_and_targets_are_kept(linear):
    poisoned = ATTACK(KEY, *linear)
    info = poisoned.info._replace(extras={"targets": jnp.array([3]), "other": jnp.zeros(2)})
    aimed = poisoned._replace(info=info)
    one, same, other = (
        same_norm(jax.random.key(k), aimed, linear.clean) for k in (1, 1, 2)
    )  # fmt: skip
    np.testing.assert_array_equal(one.dataset.x, same.dataset.x)
    assert not np.array_equal(one.dataset.x, other.dataset.x)
    assert set(one.info.extras) == {"targets"}


def test_what_has_no_norm_to_match_is_refused(linear):
    with pytest.raises(ValueError, match="no norm to match: these poisons have the pixels"):
        SameNormControl(LabelFlip(budget=Budget(0.2)))(KEY, *linear)
    poisoned = ATTACK(KEY, *linear)
    made_of_none = poisoned.info._replace(base=poisoned.info.base.at[0].set(-1))
    for info in (made_of_none, None):
        with pytest.raises(ValueError, match="no norm to match: these poisons were made of no"):
            same_norm(KEY, Poisoned(poisoned.dataset, poisoned.is_poison, info), linear.clean)
    with pytest.raises(TypeError, match="attack must be an attack, got <class"):
        SameNormControl(GaussianPoison)
    with pytest.raises(ValueError, match="must not be a control itself"):
        SameNormControl(SameNormControl(ATTACK))


def test_a_box_that_is_too_small_for_the_norm_is_said(linear):
    poisoned = ATTACK(KEY, *linear)
    rows, x = np.flatnonzero(poisoned.is_poison), poisoned.dataset.x
    base = linear.clean.x[poisoned.info.base]
    far = x.at[rows].set(jnp.where(base > 0.5, 0.0, 1.0))  # to the further side of the box
    poisoned = poisoned._replace(
        dataset=poisoned.dataset._replace(x=far), info=poisoned.info._replace(bounds=Bounds())
    )
    with pytest.warns(PoisonWarning, match="as large as the box allows"):
        same_norm(KEY, poisoned, linear.clean)
