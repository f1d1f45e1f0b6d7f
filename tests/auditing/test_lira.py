import dataclasses

import jax
import numpy as np
import pytest
from scipy import stats

from unlearnkit.auditing import Lira, Shadows, lira_scores, score_attack, train_shadows
from unlearnkit.base import Cost
from unlearnkit.training import Recipe
from unlearnkit.unlearning import FineTune

KEY = jax.random.key(11)


def planted(seed, n=3000, s=64, gap=1.0):
    """Margins a_i + gap [in] + N(0, 1), with a_i far apart: no threshold for all can work."""
    generator = np.random.default_rng(seed)
    own = generator.normal(0, 20, n)
    is_in = np.zeros((s, n), bool)
    for i in range(n):
        is_in[generator.permutation(s)[: s // 2], i] = True
    said = own + gap * is_in + generator.normal(size=(s, n))
    is_member = generator.random(n) < 0.5
    found = own + gap * is_member + generator.normal(size=n)
    return found, Shadows(said, is_in, Cost(0.0, 0.0)), is_member


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("variance", ["pooled", "example"])
def test_known_separations_give_the_area_of_the_closed_form(mode, variance):
    found, shadows, is_member = planted(0)
    scores = lira_scores(found, shadows, mode=mode, variance=variance)
    metrics = score_attack(scores[is_member], scores[~is_member]).metrics
    assert metrics["auc"] == pytest.approx(stats.norm.cdf(np.sqrt(0.5)), abs=0.03)
    naive = score_attack(found[is_member], found[~is_member]).metrics
    assert naive["auc"] == pytest.approx(0.5, abs=0.04)


def test_the_score_is_the_log_likelihood_ratio():
    found, shadows, _ = planted(1, n=20, s=10)
    online = lira_scores(found, shadows, variance="example")
    offline = lira_scores(found, shadows, mode="offline", variance="example")
    for i in range(20):
        said, is_in = shadows.margins[:, i], shadows.is_in[:, i]
        fits = [stats.norm(said[m].mean(), said[m].std(ddof=1)) for m in (is_in, ~is_in)]
        ratio = fits[0].logpdf(found[i]) - fits[1].logpdf(found[i])
        assert online[i] == pytest.approx(ratio)
        assert stats.norm.cdf(offline[i]) == pytest.approx(fits[1].cdf(found[i]))


def test_nothing_planted_nothing_found():
    found, shadows, is_member = planted(2, gap=0.0)
    scores = lira_scores(found, shadows)
    metrics = score_attack(scores[is_member], scores[~is_member]).metrics
    assert metrics["auc"] == pytest.approx(0.5, abs=4 * metrics["auc_se"])
    # Offline scores of non-members are standard normal but for the means' and variances' errors.
    many = planted(3, n=500, s=400, gap=0.0)
    z = lira_scores(*many[:2], mode="offline", variance="pooled")
    assert stats.kstest(z, "norm").pvalue > 0.01


def test_auto_pools_the_variance_of_few_shadows():
    few, many = planted(4, n=30, s=62), planted(4, n=30, s=64)
    for case, name in ((few, "pooled"), (many, "example")):
        auto = lira_scores(*case[:2], variance="auto")
        np.testing.assert_array_equal(auto, lira_scores(*case[:2], variance=name))


@pytest.fixture(scope="module")
def attacked(task):
    """A task without room between forget and test: both are candidates."""
    return task._replace(test=task.test.take(np.arange(40)))


def test_lira_finds_members_of_a_network_that_memorised(mlp, attacked, original, retrained, recipe):
    attack = Lira(recipe, count=8)
    candidates, is_member, shadows = attack.train(KEY, mlp, attacked)
    assert candidates.size == 80
    assert is_member.sum() == 40
    known = attack(KEY, mlp, original, attacked).metrics
    again = attack(KEY, mlp, retrained, attacked).metrics
    assert known["auc"] > 0.6
    assert abs(again["auc"] - 0.5) < 0.16
    offline = dataclasses.replace(attack, mode="offline")
    assert offline(KEY, mlp, original, attacked).metrics["auc"] > 0.6
    assert shadows.margins.shape == (8, 80)


def test_no_key_is_used_twice(mlp, attacked, original, recipe):
    short = dataclasses.replace(recipe, epochs=1)
    with jax.debug_key_reuse(True):
        Lira(short, FineTune(epochs=1, batch_size=32), count=4)(
            jax.random.key(9), mlp, original, attacked
        )


def test_what_cannot_be_attacked_is_refused(mlp, attacked, recipe):
    found, shadows, is_member = planted(5, n=12, s=6)
    with pytest.raises(ValueError, match="at least 2 shadows, got 0 for candidate 0"):
        lira_scores(found, shadows._replace(is_in=np.ones((6, 12), bool)))
    with pytest.raises(ValueError, match="candidate 0 do not vary"):
        lira_scores(found, shadows._replace(margins=np.zeros((6, 12))))
    broken = shadows.margins.copy()
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match="margins of the shadows must be finite"):
        lira_scores(found, shadows._replace(margins=broken))
    with pytest.raises(ValueError, match="scores of .* must be finite"):
        Lira(recipe).attack(shadows, np.full(12, np.nan), is_member)
    with pytest.raises(ValueError, match="a margin per candidate"):
        lira_scores(found[:3], shadows)
    with pytest.raises(ValueError, match="at least 2 candidates"):
        train_shadows(KEY, mlp, attacked, attacked.test.take(np.arange(1)), recipe)
    with pytest.raises(ValueError, match="count must be even"):
        train_shadows(KEY, mlp, attacked, attacked.test, recipe, count=5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 3}, "count must be even and >= 4"),
        ({"mode": "sideways"}, "mode must be one of online, offline, offline_two_sided"),
        ({"fit": "best"}, "fit must be one of unbiased, reference"),
        ({"variance": "none"}, "variance must be one of auto, pooled, example"),
    ],
)
def test_nonsense_is_refused(wrong, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        Lira(Recipe(), **wrong)
