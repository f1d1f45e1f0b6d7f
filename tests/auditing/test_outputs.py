"""An audit of outputs alone equals the audit of the network that gave them."""

import jax
import numpy as np
import pytest

from unlearnkit import auditing, data, models
from unlearnkit.auditing import Outputs, audit_outputs, read_outputs
from unlearnkit.training import Recipe, fit, predict

KEY = jax.random.key(3)
SETS = ("forget", "test", "retain")


@pytest.fixture(scope="module")
def case():
    """Three networks on one question: trained on all of it, fine-tuned a little, retrained."""
    train, test = (data.load("digits", split=split) for split in ("train", "test"))
    task = data.make_task(KEY, train.take(range(300)), test, data.RandomForget(count=60))
    model = models.create("mlp", input_shape=(8, 8, 1), n_classes=10, hidden=(16,))
    recipe = Recipe(epochs=30, batch_size=30, learning_rate=0.1)
    before, reference = (
        fit(KEY, model, examples, recipe).variables for examples in (task.train, task.retain)
    )
    after = fit(
        KEY, model, task.retain, Recipe(epochs=2, batch_size=30), variables=before
    ).variables
    return model, task, {"before": before, "after": after, "reference": reference}


def outputs(case, name, sets=SETS):
    model, task, networks = case
    parts = {part: getattr(task, part) for part in sets}
    return Outputs(
        {part: np.asarray(predict(model, networks[name], of.x)) for part, of in parts.items()},
        {part: np.asarray(of.y) for part, of in parts.items()},
    )


def test_it_is_the_audit_of_the_network(case):
    model, task, networks = case
    attacks = (auditing.MembershipInference(), auditing.MembershipInference("logits", "svm"))
    theirs = auditing.evaluate(
        KEY, model, networks["after"], task, reference=networks["reference"], attacks=attacks
    )
    ours = audit_outputs(
        KEY, outputs(case, "after"), reference=outputs(case, "reference"), attacks=attacks
    )
    assert ours.metrics.keys() - theirs.metrics.keys() == {"reference_mia_loss_logistic_auc"}
    assert {name: ours.metrics[name] for name in theirs.metrics} == theirs.metrics
    assert ours.curves.keys() == theirs.curves.keys()


def test_without_the_retain_set_its_metrics_are_missing_and_no_others_change(case):
    whole = audit_outputs(KEY, outputs(case, "after")).metrics
    part = audit_outputs(KEY, outputs(case, "after", ("forget", "test"))).metrics
    assert {name: whole[name] for name in part} == part
    missing = whole.keys() - part.keys()
    assert "accuracy_retain" in missing
    assert all(name.startswith(("accuracy_retain", "optml_")) for name in missing)


def test_what_changed_since_before(case):
    before, after = outputs(case, "before"), outputs(case, "after")
    found = audit_outputs(KEY, after, before=before).metrics
    alone = audit_outputs(KEY, before).metrics
    assert {name: found[f"before_{name}"] for name in alone} == alone
    z = {name: np.asarray(of.logits["forget"], np.float64) for name, of in
         (("before", before), ("after", after))}  # fmt: skip
    rows, y = np.arange(60), after.labels["forget"]
    losses = {n: np.log(np.exp(v).sum(1)) - v[rows, y] for n, v in z.items()}
    change = losses["after"] - losses["before"]
    assert found["change_loss_forget"] == pytest.approx(change.mean(), rel=1e-4)
    reach = 1.96 * change.std(ddof=1) / np.sqrt(60)
    assert found["change_loss_forget_high"] == pytest.approx(change.mean() + reach, rel=1e-3)
    assert found["change_loss_forget_low"] == pytest.approx(change.mean() - reach, rel=1e-3)
    p = {n: np.exp(v) / np.exp(v).sum(1, keepdims=True) for n, v in z.items()}
    distance = np.abs(p["after"] - p["before"]).sum(1).mean()
    assert found["activation_distance_before_forget"] == pytest.approx(distance, rel=1e-4)


def write(path, found, **renamed):
    arrays = {f"logits_{part}": z for part, z in found.logits.items()}
    arrays |= {f"labels_{part}": y for part, y in found.labels.items()}
    np.savez(path, **{renamed.get(name, name): values for name, values in arrays.items()})
    return path


def test_files_hold_what_was_written(case, tmp_path):
    found = outputs(case, "after")
    read = read_outputs(write(tmp_path / "a.npz", found, logits_test="Outputs_test"))
    for part in SETS:
        np.testing.assert_array_equal(read.logits[part], found.logits[part])
        np.testing.assert_array_equal(read.labels[part], found.labels[part])


def test_labels_and_outputs_in_their_usual_forms(case, tmp_path):
    found = outputs(case, "after", ("forget", "test"))
    p = {part: np.exp(z) / np.exp(z).sum(1, keepdims=True) for part, z in found.logits.items()}
    forms = Outputs(p, {"forget": np.eye(10)[found.labels["forget"]],
                        "test": found.labels["test"][:, None].astype(float)})  # fmt: skip
    path = write(tmp_path / "a.npz", forms)
    with pytest.raises(ValueError, match="logits of forget after are probabilities"):
        audit_outputs(KEY, read_outputs(path))
    named = {f"logits_{part}": f"probabilities_{part}" for part in p}
    for read in (
        read_outputs(path, probabilities=True),
        read_outputs(write(tmp_path / "b.npz", forms, **named)),
    ):
        ours = audit_outputs(KEY, read).metrics
        theirs = audit_outputs(KEY, found).metrics
        assert ours.keys() == theirs.keys()
        for name in ("accuracy_forget", "mia_loss_logistic_auc", "ks_statistic"):
            assert ours[name] == pytest.approx(theirs[name], abs=0.02)


def test_probabilities_of_queries_are_averaged(tmp_path):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(12, 1, 3, 4))
    y = np.arange(12) % 4
    path = write(tmp_path / "a.npz", Outputs({"forget": z, "test": z}, {"forget": y, "test": y}))
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    np.testing.assert_allclose(
        read_outputs(path).logits["forget"], np.log(p[:, 0].mean(1)), rtol=1e-6
    )


def test_one_record_has_an_interval_that_says_how_little_it_tells(case):
    found = outputs(case, "after", ("forget", "test"))
    one = Outputs({**found.logits, "forget": found.logits["forget"][:1]},
                  {**found.labels, "forget": found.labels["forget"][:1]})  # fmt: skip
    metrics = audit_outputs(KEY, one).metrics
    assert metrics["mia_loss_logistic_auc_high"] - metrics["mia_loss_logistic_auc_low"] > 0.5


GOOD = Outputs(
    {name: np.random.default_rng(0).normal(size=(12, 4)) for name in ("forget", "test")},
    {name: np.arange(12) % 4 for name in ("forget", "test")},
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, y: (z.pop("test"), y.pop("test")), "after need logits and labels of the test"),
        (lambda z, y: z.update(forget=z["forget"][:3]), r"\[n, c\] and labels \[n\], got \[3, 4\]"),
        (lambda z, y: y.update(forget=y["forget"] + 1), "labels of forget after must be < 4"),
        (lambda z, y: z.update(forget=z["forget"] * np.nan), "logits of forget after must be fini"),
        (
            lambda z, y: z.update(others=z["test"]),
            "outputs are of forget, test, .*'others'",
        ),
    ],
)
def test_outputs_that_cannot_be_audited_are_refused(change, message):
    logits, labels = dict(GOOD.logits), dict(GOOD.labels)
    change(logits, labels)
    with pytest.raises(ValueError, match=message):
        audit_outputs(KEY, Outputs(logits, labels))


def test_outputs_of_other_examples_are_refused():
    other = GOOD._replace(labels={**GOOD.labels, "forget": GOOD.labels["forget"][::-1]})
    with pytest.raises(ValueError, match="before are of other examples than those after: the lab"):
        audit_outputs(KEY, GOOD, before=other)
    wide = {name: np.pad(z, ((0, 0), (0, 1))) for name, z in GOOD.logits.items()}
    with pytest.raises(ValueError, match=r"reference must have the shape .*\[12, 4\], got \[12, 5"):
        audit_outputs(KEY, GOOD, reference=GOOD._replace(logits=wide))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones(3)}, "lacks logits_forget, labels_forget, logits_test, labels_test and hol"),
        ({"logits_forget": np.ones((2, 2))}, "it lacks labels_forget, logits_test, labels_test"),
        ({"logits_forget": np.ones((2, 2), int)}, "must be floating point, got int64"),
        ({"logits_forget": np.full((2, 2), np.inf)}, "must be finite"),
        ({"logits_forget": np.ones((2, 3, 2))}, r"\[n, 1, queries, c\], got the shape \[2, 3, 2\]"),
        ({"probs_forget": np.ones((2, 2))}, "must be probabilities, which are >= 0 and sum to 1"),
        ({"labels_forget": np.array([0.5, 1])}, "labels of labels_forget .* must be integers"),
    ],
)
def test_bad_files_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError if "labels of" not in message else TypeError, match=message):
        read_outputs(tmp_path / "a.npz")


def test_no_file_and_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_outputs(tmp_path / "none.npz")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="cannot read .*a.npz"):
        read_outputs(tmp_path / "a.npz")
