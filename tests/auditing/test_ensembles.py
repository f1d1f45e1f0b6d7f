import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearnkit.auditing import (
    accuracy,
    challenge_score,
    example_epsilons,
    forgetting_quality,
    klom,
    margins,
    retrained_ensemble,
    unlearned_ensemble,
)
from unlearnkit.auditing.ensembles import answers_of_many
from unlearnkit.base import Cost, Dataset, Unlearned, UnlearnInfo
from unlearnkit.training import fit, predict
from unlearnkit.unlearning import GradientAscent, Retrain
from unlearnkit.validation import InputWarning

KEY = jax.random.key(12)


def normals(shift, m, n, seed):
    return np.random.default_rng(seed).normal(shift, 1, (m, n))


def test_identical_ensembles_are_no_distance():
    margins = normals(0, 30, 50, 0)
    same = margins[::-1]  # networks have no order
    with pytest.warns(InputWarning, match="the ensemble is compared with itself"):
        assert klom(margins, same).metrics["klom_mean"] == pytest.approx(0, abs=1e-12)
    with pytest.warns(InputWarning, match="the ensemble is compared with itself"):
        quality = forgetting_quality(margins, same)
    assert quality.metrics["forgetting_quality"] == pytest.approx(1, abs=0.01)
    assert quality.metrics["epsilon_median"] == 0.0


def test_klom_is_the_divergence_of_its_histograms():
    one, other = normals(1, 40, 7, 0), normals(0, 60, 7, 1)
    found = klom(one, other, bins=5, smoothing=1e-3).curves["klom"]
    for i in range(7):
        edges = np.histogram_bin_edges(np.concatenate([one[:, i], other[:, i]]), 5)
        p, q = (np.histogram(m[:, i], edges)[0] / len(m) + 1e-3 for m in (one, other))
        assert found[i] == pytest.approx(stats.entropy(p, q))
    metrics = klom(one, other, bins=5, smoothing=1e-3).metrics
    assert metrics["klom_95"] == pytest.approx(np.percentile(found, 95))
    assert metrics["klom_mean_se"] == pytest.approx(stats.sem(found))


def test_many_networks_give_the_divergence_of_the_densities():
    one, other = normals(0.5, 100_000, 3, 0), normals(0, 100_000, 3, 1)
    # KL(N(½, 1) ‖ N(0, 1)) = ⅛; bins lose a little of it.
    assert klom(one, other).metrics["klom_mean"] == pytest.approx(0.125, abs=0.012)


def test_margins_are_clipped_and_constant_ones_are_no_distance():
    one = np.full((4, 3), 1e30)
    assert klom(one, np.full((4, 3), 150.0)).metrics["klom_mean"] == pytest.approx(0)
    assert klom(one, -one).metrics["klom_mean"] > 5


def brute_epsilon(unlearned, retrained, delta):
    best = 0.0
    for t in np.concatenate([unlearned, retrained, [-99.0, 99.0]]):
        for sign in (1, -1):
            called = [np.sign(sign * (values - t)) > 0 for values in (unlearned, retrained)]
            fnr, fpr = 1 - called[0].mean(), called[1].mean()
            if fnr == 0 and fpr == 0:
                return np.inf
            if fnr == 0 or fpr == 0:
                continue
            for top, bottom in ((1 - delta - fpr, fnr), (1 - delta - fnr, fpr)):
                if top > 0:
                    best = max(best, np.log(top / bottom))
    return best


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05]))
def test_epsilon_is_the_best_of_all_thresholds(seed, delta):
    generator = np.random.default_rng(seed)
    one, other = (generator.integers(0, 9, (generator.integers(2, 12), 6)) + 0.0 for _ in range(2))
    found = example_epsilons(one, other, delta=delta)
    expected = [brute_epsilon(one[:, i], other[:, i], delta) for i in range(6)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_score_halves_with_every_bin():
    other = np.tile(np.linspace(0, 1, 200), (2, 1)).T
    shares = [100, 140]  # of unlearned outputs above ½: ε = log(s / (1 - s)) at that threshold
    one = np.stack([np.r_[np.full(200 - s, 0.4999), np.full(s, 0.5001)] for s in shares], 1)
    audited = forgetting_quality(one, other)
    epsilons = audited.curves["epsilon"]
    expected = 2.0 ** -np.floor(epsilons / 0.5)
    np.testing.assert_array_equal(audited.curves["score"], expected)
    assert audited.metrics["forgetting_quality"] == pytest.approx(expected.mean())
    apart = forgetting_quality(one + 9, other)
    assert np.all(np.isinf(apart.curves["epsilon"]))
    assert apart.metrics["forgetting_quality"] == 2.0**-12


def test_normals_have_the_epsilon_of_their_trade_off():
    """ε(t) = log max((1 - FPR) / FNR, (1 - FNR) / FPR) at thresholds that 512 networks resolve."""
    one, other = normals(1.0, 512, 40, 0), normals(0.0, 512, 40, 1)
    t = np.linspace(-1, 2, 300)
    fpr, fnr = stats.norm.sf(t), stats.norm.cdf(t - 1)
    least = np.log(np.maximum((1 - fpr) / fnr, (1 - fnr) / fpr)).max()
    epsilons = example_epsilons(one, other)
    assert np.median(epsilons) > 0.8 * least
    assert forgetting_quality(one, other).metrics["forgetting_quality"] < 0.2


def test_the_final_score_pays_for_lost_utility():
    assert challenge_score(0.5, retain=(0.9, 0.75), test=(0.4, 0.8)) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="retrained accuracies must be > 0"):
        challenge_score(0.5, retain=(0.9, 0.0), test=(0.4, 0.8))


def test_ensembles_judge_a_method(mlp, task, recipe):
    retrained = retrained_ensemble(KEY, mlp, task, recipe, count=6)
    assert retrained.margins["forget"].shape == (6, 40)
    assert retrained.accuracy["test"].shape == (6,)
    assert retrained.cost.example_gradients == 6 * 20 * 160
    found = {}
    # An ascent of no epochs leaves the network as it was.
    methods = {"retrain": Retrain(), "nothing": GradientAscent(epochs=0, batch_size=32)}
    for name, method in methods.items():
        key = jax.random.fold_in(KEY, 1)
        ensemble = unlearned_ensemble(key, mlp, task, recipe, method, count=6)
        # Retraining was told the recipe: 20 epochs of 160, after 20 of 192 of all 200.
        spent = 160 if name == "retrain" else 0
        assert ensemble.cost.example_gradients == 6 * 20 * (192 + spent)
        pair = ensemble.margins["forget"], retrained.margins["forget"]
        found[name] = klom(*pair).metrics, forgetting_quality(*pair).metrics
    assert found["nothing"][0]["klom_mean"] > found["retrain"][0]["klom_mean"]
    assert found["nothing"][1]["forgetting_quality"] < found["retrain"][1]["forgetting_quality"]


def test_ensembles_come_from_one_original_or_from_many(mlp, task, recipe):
    """A method that draws nothing leaves one network of one original, and many of many."""
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Spy:
        def __call__(self, key, model, variables, task, *, on_epoch=None):
            seen.append((key, variables))
            return Unlearned(variables, UnlearnInfo({}, Cost(7.0, 0.0)))

    short = dataclasses.replace(recipe, epochs=2)
    for originals, trainings in (("one", 1), ("many", 3)):
        seen.clear()
        ensemble = unlearned_ensemble(KEY, mlp, task, short, Spy(), count=3, originals=originals)
        assert ensemble.originals == originals
        per_run = 2 * (200 // 32) * 32
        assert ensemble.cost.example_gradients == trainings * per_run + 3 * 7
        spread = ensemble.margins["forget"].std(axis=0)
        assert (spread.max() < 1e-6) == (originals == "one")
        assert len({tuple(jax.random.key_data(key).tolist()) for key, _ in seen}) == 3
        starts = [np.concatenate([np.ravel(w) for w in jax.tree.leaves(v)]) for _, v in seen]
        assert np.array_equal(starts[0], starts[2]) == (originals == "one")
    assert retrained_ensemble(KEY, mlp, task, short, count=2).originals == "none"


def test_an_ensemble_s_network_is_one_trained_alone(mlp, task, recipe):
    ensemble = retrained_ensemble(KEY, mlp, task, recipe, count=2)
    alone = fit(jax.random.split(KEY, 2)[1], mlp, task.retain, recipe).variables
    expected = margins(predict(mlp, alone, task.test.x), task.test.y)
    np.testing.assert_allclose(ensemble.margins["test"][1], expected, rtol=1e-2, atol=1e-2)
    assert ensemble.accuracy["retain"][1] == pytest.approx(
        accuracy(mlp, alone, task.retain), abs=0.02
    )


def test_networks_answer_in_evaluation_mode(linear):
    def refuse(variables, x, key):
        raise AssertionError("training mode")

    variables = jax.vmap(linear.init)(jax.random.split(KEY, 3))
    x, y = jax.random.normal(KEY, (7, 5)), jnp.zeros(7, jnp.int32)
    model = linear._replace(apply_train=refuse)
    found, right = answers_of_many(variables, Dataset(x, y), model=model)
    logits = x @ variables.params["w"][1]
    np.testing.assert_allclose(found[1], margins(logits, y), rtol=1e-5, atol=1e-6)
    assert right[1] == pytest.approx(np.mean(np.argmax(logits, -1) == 0))


def test_ensembles_that_do_not_fit_are_refused(mlp, task, recipe, unchecked_types):
    good, other = normals(0, 4, 5, 0), normals(1, 4, 5, 0)
    for audit in (klom, forgetting_quality):
        with pytest.raises(ValueError, match="of the same examples, got 5 and 4"):
            audit(good, good[:, :4])
        with pytest.raises(ValueError, match="unlearned must be \\[networks >= 2"):
            audit(good[:1], good)
        with pytest.raises(ValueError, match="values of retrained must be finite"):
            audit(good, np.full((4, 5), np.nan))
    with pytest.raises(ValueError, match="delta must be in"):
        example_epsilons(good, other, delta=1.0)
    with pytest.raises(ValueError, match="bin_width must be > 0"):
        forgetting_quality(good, other, bin_width=0.0)
    with pytest.raises(ValueError, match="bins must be >= 2"):
        klom(good, other, bins=1)
    with pytest.raises(ValueError, match="originals must be one of one, many, got 'few'"):
        unlearned_ensemble(KEY, mlp, task, recipe, Retrain(recipe), count=2, originals="few")
    with pytest.raises(ValueError, match="count must be >= 2"):
        retrained_ensemble(KEY, mlp, task, recipe, count=1)
