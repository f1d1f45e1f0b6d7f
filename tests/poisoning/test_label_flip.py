import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.poisoning import Budget, LabelFlip
from unlearnkit.poisoning.label_flip import flip_by_logits
from unlearnkit.training import predict

KEY = jax.random.key(0)


def flips(poisoned, clean):
    base = poisoned.info.base
    return np.asarray(clean.y[base]), np.asarray(poisoned.dataset.y[poisoned.is_poison])


@pytest.mark.parametrize("rule", ["random", "mirror", "runner_up", "adversarial"])
def test_no_poison_keeps_its_label(problems, rule):
    problem = problems["any"]
    before, after = flips(LabelFlip(Budget(0.3), rule)(KEY, *problem), problem.clean)
    assert np.all(before != after)


def test_random_labels_are_uniform_over_the_others(problems):
    problem = problems["any"]
    runs = [LabelFlip(Budget(1.0))(jax.random.key(i), *problem) for i in range(40)]
    before, after = np.concatenate([flips(run, problem.clean) for run in runs], axis=1)
    shift = (after - before) % 3
    assert set(shift) == {1, 2}
    assert abs((shift == 1).mean() - 0.5) < 5 * 0.5 / np.sqrt(len(shift))


def test_the_mirror_is_the_rule_of_the_paper_within_the_labels(problems):
    problem = problems["any"]
    before, after = flips(LabelFlip(Budget(0.3), "mirror")(KEY, *problem), problem.clean)
    assert set(before) == {1, 2}  # 3 - 0 is no label
    np.testing.assert_array_equal(after, 3 - before)


def test_the_mirror_refuses_more_than_it_can_flip(problems):
    with pytest.raises(ValueError, match="fewer than the 60 poisons"):
        LabelFlip(Budget(1.0), "mirror")(KEY, *problems["any"])


def test_flips_by_logits_against_hand_computed():
    logits = jnp.array([[3.0, 1.0, -2.0], [0.0, 5.0, 4.0], [1.0, 2.0, 9.0]])
    labels = jnp.array([0, 1, 0])
    near, margin = flip_by_logits(logits, labels, farthest=False)
    far, _ = flip_by_logits(logits, labels, farthest=True)
    np.testing.assert_array_equal(near, [1, 2, 2])
    np.testing.assert_array_equal(far, [2, 0, 1])
    np.testing.assert_array_equal(margin, [2.0, 1.0, -8.0])


def test_adversarial_flips_take_the_examples_that_support_nothing(problems):
    problem = problems["any"]
    poisoned = LabelFlip(Budget(0.1), "adversarial")(KEY, *problem)
    logits = predict(problem.model, problem.variables, problem.clean.x)
    _, margin = flip_by_logits(logits, problem.clean.y, farthest=True)
    chosen = np.zeros(problem.clean.size, bool)
    chosen[poisoned.info.base] = True
    assert margin[chosen].min() >= margin[~chosen].max()


def test_in_place_it_relabels(problems):
    problem = problems["any"]
    poisoned = LabelFlip(Budget(0.1), placement="perturb")(KEY, *problem)
    assert poisoned.dataset.size == problem.clean.size
    np.testing.assert_array_equal(poisoned.dataset.x, problem.clean.x)
    changed = np.asarray(poisoned.dataset.y != problem.clean.y)
    np.testing.assert_array_equal(changed, poisoned.is_poison)


def test_refuses_bad_input(unchecked_types):
    with pytest.raises(ValueError, match="rule must be one of"):
        LabelFlip(rule="reverse")
    with pytest.raises(ValueError, match="placement must be one of"):
        LabelFlip(placement="swap")
