"""Every registered attack through the same cases; a new one joins by itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trial_settings import made, trial_of

from unlearnkit import poisoning
from unlearnkit.base import Attack, Dataset, Normalisation, Poisoned, Variables
from unlearnkit.poisoning import Budget, PoisonInfo, load_poisoned, save_poisoned
from unlearnkit.training import Recipe
from unlearnkit.trials import AttackTrial

KEY = jax.random.key(2)
SMALL = {
    "budget": Budget(0.1),  # 6 of 60
    "epochs": 2,
    "batch_size": 20,
    "steps": 2,
    "pretrain": Recipe(epochs=2, batch_size=20, optimizer="adam", learning_rate=1e-2),
    "recipe": Recipe(epochs=5, batch_size=20),
}
"""What an attack is given of it by the names of its fields; see `unlearnkit.trials` for more."""

TRIALS = {name: trial_of(kind, AttackTrial()) for name, kind in poisoning.ATTACKS.items()}
METHODS = {name: made(kind, SMALL, TRIALS[name].small) for name, kind in poisoning.ATTACKS.items()}
OF_IMAGES = [name for name, trial in TRIALS.items() if not trial.texts]
BINARY = [name for name, trial in TRIALS.items() if trial.two_classes]


@pytest.fixture(params=list(poisoning.ATTACKS))
def name(request):
    return request.param


@pytest.fixture
def problem(name, problems):
    """Of a tiny network with ReLUs some images have no gradient to move along."""
    trial = TRIALS[name]
    if trial.texts:
        return problems["texts"]
    return problems["binary" if trial.two_classes or trial.linear else "any"]


@pytest.fixture(scope="module")
def results():
    """Each attack runs once for the tests that only look."""
    return {}


@pytest.fixture
def poisoned(name, problem, results):
    if name not in results:
        results[name] = METHODS[name](KEY, *problem)
    return results[name]


def arrays_equal(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_is_what_the_registry_promises(name):
    assert type(METHODS[name]) is poisoning.ATTACKS[name]
    assert isinstance(METHODS[name], Attack)
    assert type(TRIALS[name]) is AttackTrial


def test_poisons_what_the_budget_allows_and_nothing_else(name, problem, poisoned):
    assert isinstance(poisoned, Poisoned)
    assert isinstance(poisoned.info, PoisonInfo)
    clean, dataset, is_poison = problem.clean, poisoned.dataset, poisoned.is_poison
    most = METHODS[name].can_be_poisons(clean).sum() if TRIALS[name].texts else clean.size
    assert int(is_poison.sum()) == METHODS[name].budget.of(int(most))
    assert dataset.x.dtype == clean.x.dtype
    assert dataset.y.dtype == clean.y.dtype
    assert dataset.normalisation == clean.normalisation
    assert np.all(np.isfinite(dataset.x))
    untouched = ~np.asarray(is_poison)
    if dataset.size == clean.size:
        rows = np.flatnonzero(untouched)
        np.testing.assert_array_equal(np.flatnonzero(is_poison), poisoned.info.base)
    else:
        assert dataset.size == clean.size + is_poison.sum()
        rows = np.arange(clean.size)
    np.testing.assert_array_equal(dataset.x[untouched], clean.x[rows])
    np.testing.assert_array_equal(dataset.y[untouched], clean.y[rows])


def test_poisons_differ_from_what_they_were_made_of(problem, poisoned):
    base, is_poison = np.asarray(poisoned.info.base), poisoned.is_poison
    x, y = poisoned.dataset.x[is_poison], poisoned.dataset.y[is_poison]
    assert base.shape == (int(is_poison.sum()),)
    moved = np.any(np.asarray(x != problem.clean.x[base]).reshape(len(base), -1), axis=1)
    assert np.all((base == -1) | moved | (y != problem.clean.y[base]))
    assert y.min() >= 0
    assert y.max() < problem.model.n_classes


@pytest.mark.parametrize("name", OF_IMAGES, indirect=True)
def test_bounds_hold_exactly(problem, poisoned):
    info, x = poisoned.info, poisoned.dataset.x[poisoned.is_poison]
    origin = jnp.where((info.base < 0)[:, None, None, None], x, problem.clean.x[info.base])
    region = info.bounds.region(origin, problem.clean.normalisation)
    assert bool(region.contains(x).all())


def test_the_network_and_the_task_stay_as_they_were(name, problem):
    before = jax.tree.map(np.array, (problem.variables, problem.task))
    METHODS[name](KEY, *problem)
    assert arrays_equal((problem.variables, problem.task), before)


def test_the_same_key_gives_the_same_bits(name, problem, poisoned):
    again = METHODS[name](KEY, *problem)
    assert arrays_equal(poisoned[:2], again[:2])
    assert arrays_equal(poisoned.info.base, again.info.base)


def test_no_key_is_used_twice(name, problem):
    with jax.debug_key_reuse(True):
        METHODS[name](jax.random.key(5), *problem)


def test_counts_its_cost_and_keeps_its_history(poisoned):
    info = poisoned.info
    assert info.cost.example_gradients >= 0
    assert info.cost.seconds > 0
    for values in info.history.values():
        assert np.all(np.isfinite(values))


def test_comes_back_from_disk_bit_for_bit(problem, poisoned, tmp_path):
    save_poisoned(tmp_path / "poisons", poisoned, problem.clean)
    loaded = load_poisoned(tmp_path / "poisons", problem.clean)
    assert arrays_equal(loaded[:2], poisoned[:2])
    assert arrays_equal(loaded.info.base, poisoned.info.base)
    assert loaded.info.bounds == poisoned.info.bounds
    assert loaded.info.cost == poisoned.info.cost
    assert arrays_equal(dict(loaded.info.extras), dict(poisoned.info.extras))


def test_is_a_value_that_prints_and_hashes(name):
    method = METHODS[name]
    assert type(method).__name__ in repr(method)
    assert hash(method) == hash(METHODS[name])
    assert poisoning.create(name) == type(method)()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t._replace(forget=t.forget.take(np.arange(0))), "forget"),
        (
            lambda t: t._replace(forget=t.forget._replace(x=t.forget.x.at[1, 2, 3].set(np.nan))),
            "finite",
        ),
        (
            lambda t: t._replace(forget=t.forget._replace(y=t.forget.y.at[3].set(7))),
            "labels of forget must be <",
        ),
        (lambda t: t._replace(retain=t.retain._replace(x=t.retain.x[:, :3])), "has shape"),
        (
            lambda t: t._replace(
                validation=Dataset(*t.validation[:2], Normalisation("other", (0.5,), (0.5,)))
            ),
            "normalised",
        ),
    ],
)
def test_bad_tasks_are_refused(name, problem, damage, message, unchecked_types):
    model, variables, task = problem
    if model.takes_tokens and message in ("finite", "normalised"):
        return  # ids are whole numbers, in no units
    with pytest.raises(ValueError, match=message):
        METHODS[name](KEY, model, variables, damage(task))


def test_weights_of_another_network_are_refused(name, problem):
    with pytest.raises(ValueError, match="variables do not fit the model"):
        METHODS[name](KEY, problem.model, Variables({"other": jnp.zeros(3)}), problem.task)


def test_budgets_of_less_than_one_poison_are_refused(name, problem):
    small = dataclasses.replace(METHODS[name], budget=Budget(0.01))
    with pytest.raises(ValueError, match="less than one poison"):
        small(KEY, *problem)


def test_bounds_that_exclude_the_images_are_refused(name, problem):
    method = METHODS[name]
    if not hasattr(method, "bounds"):  # it changes no pixels
        return
    narrow = dataclasses.replace(method, bounds=dataclasses.replace(method.bounds, box=(0.4, 0.6)))
    with pytest.raises(ValueError, match="bounds exclude the base image"):
        narrow(KEY, *problem)


@pytest.mark.parametrize("name", BINARY)
def test_binary_attacks_refuse_more_classes(name, problems):
    with pytest.raises(ValueError, match="two classes.*for more classes use total_gradient"):
        METHODS[name](KEY, *problems["any"])


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown attack 'tgdaa'; known: .*label_flip"):
        poisoning.create("tgdaa")
