"""Numbers that stand beside published ones, against implementations of their own definitions.

The inputs are stored, so that no generator decides what is compared.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import published_scores
import pytest

from unlearnkit.auditing import (
    OPTML_METRICS,
    OptmlScores,
    Shadows,
    audit_reference,
    challenge_epsilons,
    challenge_forgetting_quality,
    evaluate,
    example_epsilons,
    forgetting_quality,
    lira_scores,
    optml_gap,
    query_margins,
    read_lira_folder,
)
from unlearnkit.base import Cost, Dataset, Task, Variables
from unlearnkit.models import from_functions

KEY = jax.random.key(0)
INPUTS = json.loads((Path(__file__).parent / "published_inputs.json").read_text(encoding="utf-8"))
CHALLENGE = {name: np.array(values) for name, values in INPUTS["challenge"].items()}


def test_the_challenge_s_score_is_the_published_one():
    audited = challenge_forgetting_quality(**CHALLENGE)
    quality, epsilons = published_scores.challenge_quality(**CHALLENGE)
    np.testing.assert_allclose(audited.curves["epsilon"], epsilons, rtol=0, atol=1e-6)
    assert audited.metrics["challenge_forgetting_quality"] == pytest.approx(quality, abs=1e-6)
    assert audited.metrics["challenge_epsilon_limit"] == 4
    assert {0.0, 50.0} < set(np.r_[audited.curves["score"], epsilons])
    assert len(set(audited.curves["score"])) >= 3


def test_both_sides_of_the_challenge_are_treated_alike():
    turned = challenge_epsilons(CHALLENGE["retrained"], CHALLENGE["unlearned"])
    np.testing.assert_allclose(turned, challenge_epsilons(**CHALLENGE), atol=1e-6)


def normals(seed, m=64, n=40, spread=1.0):
    return np.random.default_rng(seed).normal(0, spread, (m, n))


def test_two_thresholds_see_what_one_does_not():
    """Half as wide around the same middle: one threshold is right on few, two are on many."""
    narrow, wide = normals(0, spread=0.5), normals(1)
    double, single = challenge_epsilons(narrow, wide), example_epsilons(narrow, wide)
    assert np.median(double) > np.median(single) + 0.2
    quality = challenge_forgetting_quality(narrow, wide).metrics["challenge_forgetting_quality"]
    assert quality < 0.7 * forgetting_quality(narrow, wide).metrics["forgetting_quality"]


def test_a_peak_earns_nothing():
    """Its range is below 1 % of the other's; one threshold sees nothing, as the medians agree."""
    wide = normals(2, m=20, n=5)
    centre = np.median(wide, axis=0)
    peaked = centre + 0.001 * np.linspace(-1, 1, 20)[:, None]
    audited = challenge_forgetting_quality(peaked, wide)
    np.testing.assert_array_equal(audited.curves["epsilon"], 50.0)
    np.testing.assert_array_equal(audited.curves["score"], 0.0)
    assert forgetting_quality(peaked, wide).metrics["forgetting_quality"] > 0


def test_beyond_what_so_few_networks_can_show_there_are_no_points():
    """ε up to ⌈log 7⌉ = 2 can be told with 8 networks; a larger one earns nothing."""
    one, other = normals(3, m=8, n=60), normals(4, m=8, n=60)
    audited = challenge_forgetting_quality(one + 1.0, other)
    beyond = audited.curves["epsilon"] >= audited.metrics["challenge_epsilon_limit"]
    assert 0 < beyond.sum() < 60
    np.testing.assert_array_equal(audited.curves["score"] == 0, beyond)
    assert audited.curves["score"][~beyond].min() >= 2.0**-3


def test_ensembles_that_the_challenge_cannot_score_are_refused(unchecked_types):
    good = normals(5, m=6, n=3)
    with pytest.raises(ValueError, match="as many unlearned as retrained networks, at least 3"):
        challenge_forgetting_quality(good[:5] + 0.01, good)
    with pytest.raises(ValueError, match="as many unlearned as retrained networks, at least 3"):
        challenge_forgetting_quality(good[:2], good[2:4])
    same, other = (np.where(np.arange(3) == 1, 0.25, part) for part in (good, good + 0.01))
    with pytest.raises(ValueError, match="has a rate of 0 on forget example 1 \\(1 such"):
        challenge_forgetting_quality(same, other)


IDENTITY = from_functions(
    lambda key: {"scale": jnp.ones(1)},
    lambda params, x: x * params["scale"],
    input_shape=(3,),
)


def optml_task(network):
    """A task whose inputs are the stored logits of a network, for a model that is the identity."""
    labels = INPUTS["optml"]["labels"]
    parts = {
        name: Dataset(jnp.array(logits, jnp.float32), jnp.array(labels[name], jnp.int32))
        for name, logits in INPUTS["optml"][network].items()
    }
    return Task(**parts, validation=parts["test"])


def published_optml(network):
    logits = {name: np.array(z) for name, z in INPUTS["optml"][network].items()}
    labels = {name: np.array(y) for name, y in INPUTS["optml"]["labels"].items()}
    return published_scores.optml_scores(logits, labels)


def test_optml_scores_and_their_gap_are_the_published_ones():
    variables, found = IDENTITY.init(KEY), {}
    for network in ("unlearned", "retrained"):
        task = optml_task(network)
        metrics = evaluate(KEY, IDENTITY, variables, task).metrics
        found[network] = metrics
        expected = published_optml(network)
        np.testing.assert_allclose([metrics[name] for name in OPTML_METRICS], expected, atol=1e-6)
        alone = OptmlScores()(KEY, IDENTITY, variables, task).metrics
        assert alone.items() <= metrics.items()
        assert alone["optml_mia_efficacy_low"] < expected[3] < alone["optml_mia_efficacy_high"]
        assert 0 < expected[3] < 1
    gap = np.mean(np.abs(published_optml("unlearned") - published_optml("retrained")))
    assert gap > 0.01
    assert optml_gap(found["unlearned"], found["retrained"]) == pytest.approx(gap, abs=1e-6)


def test_a_record_holds_the_published_gap_beside_ours():
    task = optml_task("unlearned")
    one, other = IDENTITY.init(KEY), Variables({"scale": -jnp.ones(1)})
    reference = audit_reference(KEY, IDENTITY, other, task)
    metrics = evaluate(KEY, IDENTITY, one, task, reference=reference).metrics
    assert metrics["optml_gap"] == pytest.approx(optml_gap(metrics, reference.metrics))
    assert metrics["optml_gap"] != pytest.approx(metrics["average_gap"], abs=1e-3)
    without = evaluate(KEY, IDENTITY, one, task, reference=reference, optml=None).metrics
    assert not [name for name in without if name.startswith("optml")]
    assert without["average_gap"] == metrics["average_gap"]
    blind = audit_reference(KEY, IDENTITY, other, task, optml=None)
    with pytest.raises(ValueError, match="optml_gap needs the reference's optml_\\* metrics"):
        evaluate(KEY, IDENTITY, one, task, reference=blind)


def test_the_machine_learns_the_first_retain_examples_up_to_the_limit():
    """Retain examples beyond the size of the test set, or of the limit, are not seen."""
    task = optml_task("unlearned")
    variables = IDENTITY.init(KEY)

    def efficacy(task, **options):
        audited = OptmlScores(**options)(KEY, IDENTITY, variables, task)
        return audited.metrics["optml_mia_efficacy"]

    x = task.retain.x
    beyond = task._replace(retain=task.retain._replace(x=x.at[40:].set(-x[40:])))
    assert efficacy(beyond) == efficacy(task)
    within = task._replace(retain=task.retain._replace(x=x.at[:40].set(-x[:40])))
    assert efficacy(within) != efficacy(task)
    cut = task._replace(retain=task.retain.take(np.arange(10)), test=task.test.take(np.arange(10)))
    assert efficacy(task, limit=10) == efficacy(cut) == efficacy(cut, limit=None)
    assert efficacy(task, limit=None) == efficacy(task)
    with pytest.raises(ValueError, match="limit must be >= 1, or None"):
        OptmlScores(limit=0)


@pytest.fixture(scope="module")
def lira():
    """The stored networks; the last is attacked by the others."""
    inputs = INPUTS["lira"]
    labels, keep = np.array(inputs["labels"]), np.array(inputs["keep"])
    said = np.stack([query_margins(np.array(z), labels) for z in inputs["logits"]])
    return said[-1], Shadows(said[:-1], keep[:-1], Cost(0.0, 0.0))


@pytest.mark.parametrize("fixed_variance", [False, True])
@pytest.mark.parametrize("mode", ["online", "offline_two_sided"])
def test_lira_s_reference_forms_are_the_published_ones(lira, mode, fixed_variance):
    labels = np.array(INPUTS["lira"]["labels"])
    said = np.stack(
        [published_scores.lira_queries(np.array(z), labels) for z in INPUTS["lira"]["logits"]]
    )
    found, shadows = lira
    np.testing.assert_allclose(found, said[-1], atol=1e-6)
    expected = published_scores.lira_reference(
        said[-1], said[:-1], shadows.is_in, online=mode == "online", fixed_variance=fixed_variance
    )
    variance = "pooled" if fixed_variance else "example"
    scores = lira_scores(found, shadows, mode=mode, variance=variance, fit="reference")
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)
    ours = lira_scores(found, shadows, mode=mode, variance=variance)
    assert not np.allclose(ours, expected, atol=1e-3)


def test_several_queries_are_averaged(lira):
    found, shadows = lira
    for mode in ("online", "offline", "offline_two_sided"):
        together = lira_scores(found, shadows, mode=mode, variance="example")
        each = [
            lira_scores(
                found[:, q],
                shadows._replace(margins=shadows.margins[:, :, q]),
                mode=mode,
                variance="example",
            )
            for q in range(2)
        ]
        np.testing.assert_allclose(together, np.mean(each, axis=0))


def test_the_two_sided_form_sees_both_sides(lira):
    _, shadows = lira
    centre = shadows.margins[:, :, :1].mean()
    mean = np.full(shadows.margins.shape[1:], centre)
    out = shadows._replace(
        margins=centre + np.random.default_rng(0).normal(size=shadows.margins.shape),
        is_in=np.zeros_like(shadows.is_in),
    )
    high, low = (
        {
            mode: lira_scores(mean + shift, out, mode=mode).mean()
            for mode in ("offline", "offline_two_sided")
        }
        for shift in (5.0, -5.0)
    )
    middle = lira_scores(mean, out, mode="offline_two_sided").mean()
    assert low["offline"] < 0 < high["offline"]
    assert min(low["offline_two_sided"], high["offline_two_sided"]) > middle + 5


def write_folder(folder, keep, logits, labels):
    np.save(folder / "y_train.npy", labels)
    for i, (kept, values) in enumerate(zip(keep, logits, strict=True)):
        network = folder / f"experiment-{i:02d}"
        (network / "logits").mkdir(parents=True)
        np.save(network / "keep.npy", kept)
        np.save(network / "logits" / "0000000009.npy", np.zeros_like(values))
        np.save(network / "logits" / "0000000010.npy", values)
    return folder


def test_a_folder_of_logits_is_read(lira, tmp_path):
    inputs = INPUTS["lira"]
    labels, keep = np.array(inputs["labels"]), np.array(inputs["keep"])
    # Labels and keep of all examples, logits of the first ones, as the public code allows.
    more, kept_more = np.r_[labels, 0, 1], np.concatenate([keep, keep[:, :2]], axis=1)
    networks = read_lira_folder(write_folder(tmp_path, kept_more, np.array(inputs["logits"]), more))
    found, shadows = lira
    np.testing.assert_array_equal(networks.margins[-1], found)
    np.testing.assert_array_equal(networks.margins[:-1], shadows.margins)
    np.testing.assert_array_equal(networks.is_in, keep)


def test_what_is_no_folder_of_logits_is_refused(tmp_path):
    labels, keep = np.zeros(4, int), np.ones((2, 4), bool)
    logits = np.zeros((2, 4, 1, 3, 2))
    with pytest.raises(FileNotFoundError):
        read_lira_folder(tmp_path)
    np.save(tmp_path / "y_train.npy", labels)
    with pytest.raises(FileNotFoundError, match="no experiment\\* folder"):
        read_lira_folder(tmp_path)
    write_folder(tmp_path, keep, logits, labels)
    assert read_lira_folder(tmp_path).margins.shape == (2, 4, 3)
    second = tmp_path / "experiment-01"
    np.save(second / "keep.npy", np.ones(4))
    with pytest.raises(ValueError, match="keep.npy of experiment-01 must be bool \\[4\\]"):
        read_lira_folder(tmp_path)
    np.save(second / "keep.npy", keep[0])
    np.save(second / "logits" / "0000000011.npy", np.zeros((4, 1, 2, 2)))
    with pytest.raises(ValueError, match="experiment-01 has margins \\[4, 2\\]"):
        read_lira_folder(tmp_path)
    np.save(second / "logits" / "0000000011.npy", np.array([None] * 4), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_lira_folder(tmp_path)


def test_logits_of_another_layout_are_refused(unchecked_types):
    with pytest.raises(ValueError, match="logits must be \\[n, 1, queries, classes\\]"):
        query_margins(np.zeros((4, 3)), np.zeros(4, int))
    with pytest.raises(ValueError, match="labels must be \\[4\\] class indices below 3"):
        query_margins(np.zeros((4, 1, 1, 3)), np.array([0, 1, 2, 3]))
