"""Every registered audit through the same cases; a new one joins by itself.

An audit that needs no more than a network and a task is called; one that can `judge` is asked about
a case too, made of the same task, or of poisons of the attack that it names.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bright_rows import MODEL, effective, train_clean
from bright_rows import RECIPE as SHORT
from bright_rows import TASK as BRIGHT
from trial_settings import made, required_of, trial_of

from unlearnkit import auditing, models
from unlearnkit.auditing import Case, CaseAudit, InMemory, NotApplicable, Subject, judge
from unlearnkit.base import Audit, Audited, Cost, Unlearned, UnlearnInfo, Variables
from unlearnkit.models import from_functions
from unlearnkit.studies.poisoned import poisoned_task
from unlearnkit.training import DivergedError, Recipe, fit, fit_many
from unlearnkit.trials import AuditTrial

KEY = jax.random.key(2)
RECIPE = Recipe(epochs=80, batch_size=32, learning_rate=0.05)
SMALL = {"recipe": RECIPE, "count": 4}
"""What an audit is given of it by the names of its fields; see `unlearnkit.trials` for more."""

TRIALS = {name: trial_of(kind, AuditTrial()) for name, kind in auditing.AUDITS.items()}
AUDIT = {name: made(kind, SMALL, TRIALS[name].small) for name, kind in auditing.AUDITS.items()}
CALLED = [
    name
    for name, audit in AUDIT.items()
    if isinstance(audit, Audit) and TRIALS[name].attack is None and not TRIALS[name].texts
]
OF_TEXTS = [name for name, trial in TRIALS.items() if trial.texts]
"""Which are tried in test_language.py."""
JUDGING = [name for name, audit in AUDIT.items() if isinstance(audit, CaseAudit)]
OF_POISONS = [name for name in JUDGING if TRIALS[name].attack]


@pytest.fixture(scope="module")
def mlp():
    return models.create("mlp", input_shape=(6,), n_classes=3, hidden=(64,))


@pytest.fixture(scope="module")
def original(mlp, task):
    """It has learned every label by heart."""
    return fit(jax.random.key(0), mlp, task.train, RECIPE).variables


@pytest.fixture(params=CALLED)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def results():
    """Each audit of the original runs once for the tests that only look."""
    return {}


@pytest.fixture
def audited(name, mlp, original, task, results):
    if name not in results:
        results[name] = AUDIT[name](KEY, mlp, original, task)
    return results[name]


@pytest.mark.parametrize("name", list(auditing.AUDITS))
def test_is_what_the_registry_promises(name):
    assert type(AUDIT[name]) is auditing.AUDITS[name]
    assert name in CALLED or name in JUDGING or name in OF_TEXTS
    assert type(TRIALS[name]) is AuditTrial


def test_measures_without_touching_the_network(name, mlp, original, task):
    before = jax.tree.map(np.array, original)
    audited = AUDIT[name](KEY, mlp, original, task)
    assert isinstance(audited, Audited)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(original), strict=True):
        np.testing.assert_array_equal(one, other)
    check_numbers(audited)


def check_numbers(audited):
    assert audited.metrics
    for metric, value in audited.metrics.items():
        assert type(value) is float, metric
        assert np.isfinite(value), metric
    for name, curve in audited.curves.items():  # an example that is always told has ε = ∞
        assert not np.any(np.isnan(curve)), name
        assert np.all(np.isfinite(curve)) or name == "epsilon"


SEEDS, ENSEMBLES = 10, 3


@pytest.fixture(scope="module")
def networks(mlp, task):
    """[seeds] networks that were trained on the forget set, and [seeds] that were not."""
    rows = np.arange(task.train.size)
    return [
        fit_many(
            jax.random.split(jax.random.key(key), SEEDS), mlp, task.train, RECIPE,
            subsets=np.tile(rows[:size], (SEEDS, 1)),
        ).variables
        for key, size in ((10, len(rows)), (11, task.retain.size))
    ]  # fmt: skip


def tells_apart(measure, trial, networks):
    """Returns whether originals are beyond retrained networks by two standard errors.

    Args:
      measure: (seed, weights, whether they are retrained) -> metrics.
      trial: says by which metric, and in which direction.
      networks: [seeds] originals, and [seeds] retrained ones.
    """
    metric, direction = trial.tells

    def measured(many, seed, retrained):
        one = jax.tree.map(lambda leaf: leaf[seed], many)
        metrics = measure(seed, one, retrained)
        return metrics[metric] - (metrics[trial.less] if trial.less else 0)

    originals, references = (
        np.array([measured(many, seed, retrained) for seed in range(SEEDS)])
        for many, retrained in zip(networks, (False, True), strict=True)
    )
    differences = direction * (originals - references)
    return differences.mean() > 2 * differences.std(ddof=1) / np.sqrt(SEEDS)


def called(audit, mlp, task):
    return lambda seed, one, _: audit(jax.random.key(20 + seed), mlp, one, task).metrics


def test_tells_them_apart_by_more_than_two_standard_errors(name, mlp, networks, task):
    assert tells_apart(called(AUDIT[name], mlp, task), TRIALS[name], networks)


def test_an_audit_that_does_not_look_tells_nothing_apart(mlp, networks, task):
    def constant(key, model, variables, task):
        return Audited({"auc": 0.7}, {})

    def chance(key, model, variables, task):
        return Audited({"auc": float(jax.random.uniform(key))}, {})

    for audit in (constant, chance):
        assert not tells_apart(called(audit, mlp, task), AuditTrial(), networks)


def test_rates_have_intervals_around_them(audited):
    check_intervals(audited.metrics)


def check_intervals(metrics):
    for metric in metrics:
        if metric.endswith("_low"):
            base = metric.removesuffix("_low")
            assert metrics[metric] <= metrics[base] <= metrics[f"{base}_high"]
    if "auc" in metrics:
        assert metrics["auc_max"] == max(metrics["auc"], 1 - metrics["auc"])
        assert metrics["auc_se"] > 0
        for target in ("0.01", "0.001"):
            assert f"tpr_at_fpr_{target}" in metrics


def test_the_key_decides_everything(name, mlp, original, task, audited):
    one = audited.metrics
    same, other = (
        AUDIT[name](jax.random.key(seed), mlp, original, task).metrics for seed in (2, 3)
    )
    assert one == same
    if not TRIALS[name].key_may_not_matter:
        assert one != other


def test_no_key_is_used_twice(name, mlp, original, task):
    with jax.debug_key_reuse(True):
        AUDIT[name](jax.random.key(5), mlp, original, task)


@pytest.mark.parametrize("name", list(auditing.AUDITS))
def test_is_a_value_that_prints_and_hashes(name):
    audit, kind = AUDIT[name], auditing.AUDITS[name]
    assert type(audit).__name__ in repr(audit)
    assert hash(audit) == hash(AUDIT[name])
    required = required_of(kind, TRIALS[name].small)
    created = auditing.create(name, **required)
    assert repr(created) == repr(kind(**required))
    if kind.__dataclass_params__.eq:  # one that may hold arrays is equal to itself alone
        assert created == kind(**required)


def test_a_network_that_diverged_is_refused(name, task, original):
    model = from_functions(
        lambda key: {"w": jnp.ones((6, 3))},
        lambda params, x: x @ params["w"] * jnp.nan,
        input_shape=(6,),
    )
    with pytest.raises((ValueError, DivergedError), match="finite|diverged|NaN"):
        AUDIT[name](KEY, model, model.init(KEY), task)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t._replace(forget=t.forget.take(np.arange(0))), "forget"),
        (lambda t: t._replace(test=t.test.take(np.arange(0))), "test"),
        (
            lambda t: t._replace(test=t.test._replace(x=t.test.x.at[1, 2].set(np.nan))),
            "x of test must be finite",
        ),
        (
            lambda t: t._replace(forget=t.forget._replace(y=t.forget.y.at[0].set(7))),
            "labels of forget must be < 3",
        ),
    ],
)
def test_bad_tasks_are_refused(name, mlp, original, task, damage, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        AUDIT[name](KEY, mlp, original, damage(task))


def test_weights_of_another_network_are_refused(name, mlp, task):
    with pytest.raises(ValueError, match="variables do not fit the model"):
        AUDIT[name](KEY, mlp, Variables({"other": jnp.zeros(3)}), task)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown audit 'lyra'; known: membership_inference"):
        auditing.create("lyra")


# Audits that judge a case.


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question, and [seeds] networks that trained on everything and on the retain set."""

    case: Case
    networks: tuple
    shares: tuple = dataclasses.field(
        default_factory=lambda: tuple(InMemory() for _ in range(ENSEMBLES))
    )

    def of(self, seed):
        """Returns the case with the networks of a seed; a few ensembles serve all seeds."""
        original, reference = (jax.tree.map(lambda leaf: leaf[seed], n) for n in self.networks)
        return dataclasses.replace(
            self.case, key=jax.random.key(20 + seed), original=original,
            reference=self.case.reference._replace(variables=reference),
            share=self.shares[seed % ENSEMBLES],
        )  # fmt: skip


def a_problem(model, recipe, task, networks, **poisons):
    info = UnlearnInfo({}, Cost(float(task.retain.size), 0.0))
    one = jax.tree.map(lambda leaf: leaf[0], networks[0])
    return Problem(Case(KEY, model, recipe, task, one, Unlearned(one, info), **poisons), networks)


@pytest.fixture(scope="module")
def problems(mlp, task, networks):
    """By the attack whose poisons are the question; None where there are none."""
    clean = train_clean()
    found = {None: a_problem(mlp, RECIPE, task, networks)}
    for attack in {TRIALS[name].attack for name in OF_POISONS}:
        poisoned = effective(attack)(jax.random.key(1), MODEL, clean, BRIGHT)
        question = poisoned_task(poisoned, BRIGHT.validation, BRIGHT.test)
        trained = tuple(
            fit_many(jax.random.split(jax.random.key(k), SEEDS), MODEL, data, SHORT).variables
            for k, data in ((10, question.train), (11, question.retain))
        )
        found[attack] = a_problem(MODEL, SHORT, question, trained, clean=clean, poisoned=poisoned)
    return found


@pytest.fixture(params=JUDGING)
def judging(request):
    return request.param


@pytest.fixture
def problem(judging, problems):
    return problems[TRIALS[judging].attack]


def test_judges_without_touching_the_networks(judging, problem):
    case = problem.of(0)
    subject = Subject(case.original)
    before = jax.tree.map(np.array, (case.original, case.reference.variables, case.task))
    audited = judge(AUDIT[judging], case, subject)
    check_numbers(audited)
    check_intervals(audited.metrics)
    after = (case.original, case.reference.variables, case.task)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_key_decides_every_judgement(judging, problem):
    case = problem.of(0)
    one, same, other = (
        judge(AUDIT[judging], dataclasses.replace(case, key=jax.random.key(seed), share=InMemory()),
              Subject(case.original)).metrics
        for seed in (2, 2, 3)
    )  # fmt: skip
    assert one == same
    if not TRIALS[judging].key_may_not_matter:
        assert one != other


def test_no_key_of_a_case_is_used_twice(judging, problem):
    case = dataclasses.replace(problem.of(0), key=jax.random.key(5), share=InMemory())
    with jax.debug_key_reuse(True):
        judge(AUDIT[judging], case, Subject(case.original))


def test_tells_original_and_reference_apart(judging, problem):
    def measure(seed, one, retrained):
        return judge(AUDIT[judging], problem.of(seed), Subject(one, is_reference=retrained)).metrics

    assert tells_apart(measure, TRIALS[judging], problem.networks)


@pytest.mark.parametrize("name", OF_POISONS)
def test_where_there_is_nothing_to_measure_it_does_not_apply(name, problems):
    case = problems[None].of(0)
    with pytest.raises(NotApplicable, match="poison"):
        judge(AUDIT[name], case, Subject(case.original))


@pytest.mark.parametrize("name", OF_POISONS)
def test_poisons_of_any_attack_are_measured_or_do_not_apply(name, problems):
    for attack, problem in problems.items():
        case = problem.of(0)
        try:
            found = judge(AUDIT[name], case, Subject(case.original))
        except NotApplicable:
            assert attack != TRIALS[name].attack
        else:
            assert attack is not None
            check_numbers(found)
