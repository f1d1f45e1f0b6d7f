import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.frame import load_result, main
from experiments.poison_unlearning import claims, settings
from experiments.poison_unlearning.__main__ import PoisonUnlearning, as_rows, told
from experiments.poison_unlearning.figures import show
from experiments.poison_unlearning.least_squares import (
    LeastSquares,
    Samples,
    cancel,
    corrupt_parameters,
    descend,
    draw,
    loss,
)
from experiments.poison_unlearning.settings import METHODS, POISONS, choose_settings
from experiments.poison_unlearning.shift import RIDGE, solve, standard_features
from unlearnkit import models
from unlearnkit.base import Cost, Dataset, Normalisation, Task
from unlearnkit.data import made_reviews, train_tokenizer
from unlearnkit.poisoning import Budget, GaussianPoison
from unlearnkit.studies import (
    ORIGINAL,
    RETRAIN,
    Record,
)
from unlearnkit.studies.reviews import load_reviews, prepare
from unlearnkit.training import CrossEntropy

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert main(PoisonUnlearning(scale="smoke", dataset="digits", results=folder)) == 0
    return folder / "poison_unlearning"


def test_writes_numbers_tables_pictures_and_the_page(results):
    stems = {f"digits-{kind}-smoke" for kind in POISONS}
    pictures = ("poisons", "methods", "budgets", "identified")
    drawn = {f"{stem}-{name}.svg" for stem in stems for name in pictures}
    drawn |= {"digits-gaussian-smoke-statistics.svg"}
    drawn |= {"digits-shift-smoke-shifts.svg", "synthetic-updates-smoke-updates.svg"}
    stems |= {"digits-shift-smoke", "synthetic-updates-smoke"}
    written = {f"{stem}.{kind}" for stem in stems for kind in ("json", "md")}
    assert {path.name for path in results.iterdir()} == {
        *written, "smoke.html", "digits-smoke.md", "pictures"
    }  # fmt: skip
    pictures = results / "pictures"
    assert {path.name for path in pictures.iterdir()} == drawn
    assert all((pictures / name).read_text().startswith("<svg") for name in drawn)
    page = (results / "smoke.html").read_text()
    assert page.count("data:image/svg") == len(drawn)
    assert "No method reaches Retrain" in page


def test_every_method_stands_within_the_budget(results):
    for kind in POISONS:
        run, records = load_result(results / f"digits-{kind}-smoke.json")
        assert {r.seed for r in records} == {0, 1}
        assert {r.method for r in records} == {ORIGINAL, RETRAIN, *run["methods"]}
        for record in records:
            whole = record.budget is None and record.identified == 1
            kept = {"gaussian_statistic"} if kind == "gaussian" and whole else set()
            assert record.curves.keys() == kept
            assert record.diverged is None
            if record.budget is not None:
                assert 0 < record.metrics["compute"] <= record.budget == 0.2
        assert json.loads(json.dumps(run))["provenance"]["versions"]


def test_partial_forget_sets_controls_and_sizes_are_in_the_tables(results):
    for kind in POISONS:
        _, records = load_result(results / f"digits-{kind}-smoke.json")
        partial = [r for r in records if r.identified == 0.8]
        assert {r.method for r in partial} == {r.method for r in records} - {ORIGINAL}
        text = (results / f"digits-{kind}-smoke.md").read_text()
        assert "identified: | 80 % | 100 % |" in text
        assert "Largest pixel" in text
    assert "5 % control poisons: original" in text
    assert "further than random ones of the same norms" in text


@pytest.mark.parametrize(("kind", "poisons"), [("gaussian", 40), ("targeted", 18)])
def test_poisons_are_a_share_of_the_images_of_their_kind(results, kind, poisons):
    _, records = load_result(results / f"digits-{kind}-smoke.json")
    assert {r.metrics["size_poisons"] for r in records if r.budget is None} == {poisons}


def test_the_page_is_made_again_from_its_numbers(results):
    page = (results / "smoke.html").read_text()
    (results / "smoke.html").unlink()
    assert main(PoisonUnlearning(scale="smoke", part="page", results=results.parent)) == 0
    assert (results / "smoke.html").read_text() == page


def test_missing_data_and_missing_results_are_told(tmp_path, capsys):
    asked = PoisonUnlearning(scale="cpu", dataset="mnist", data_dir=tmp_path, results=tmp_path)
    assert main(asked) == 2
    assert "error:" in capsys.readouterr().out
    assert main(dataclasses.replace(asked, dataset="digits")) == 2
    assert (
        "dataset must be one of cifar10, cifar10_three, mnist, imdb, imdb_more at scale cpu"
        in capsys.readouterr().out
    )
    assert main(PoisonUnlearning(scale="cpu", part="page", results=tmp_path)) == 2
    assert "no result of scale cpu" in capsys.readouterr().out


def test_texts_are_poisoned_unlearned_and_judged(tmp_path):
    asked = PoisonUnlearning(scale="smoke", part="imdb", seeds=1, results=tmp_path)
    assert main(asked) == 0
    folder = tmp_path / "poison_unlearning"
    for kind, metric in (
        ("gaussian", "gaussian_gus"),
        ("targeted", "targets_adversarial_probability"),
    ):
        run, records = load_result(folder / f"imdb-{kind}-smoke.json")
        assert any("Disney stands in" in note for note in run["notes"])
        assert {r.method for r in records} == {ORIGINAL, RETRAIN, *run["methods"]}
        before, after = (
            next(r.metrics[metric] for r in records if r.method == name)
            for name in (ORIGINAL, RETRAIN)
        )
        assert abs(before) > abs(after)
        text = (folder / f"imdb-{kind}-smoke.md").read_text()
        assert "Figure 2 (b)" in text or "Figure 3 (b)" in text
        assert "Figure 2 (a)" not in text
        assert "Figure 3 (a)" not in text


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (("holds", "holds"), "holds"),
        (("does not hold", "does not hold"), "holds"),
        (("holds", "does not hold"), "does not hold"),
        (("holds", "undecided"), "undecided"),
    ],
)
def test_sizes_agree_where_all_verdicts_do(said, verdict):
    name = f"{claims.PAPER}.imdb_gaussian_left"
    judged = [
        claims.Claim(f"scrub leaves {i} % poisons", "", "", "", one, name)
        for i, one in enumerate(said)
    ]
    found = {claim.text.split()[0]: claim.verdict for claim in claims._sizes_agree(judged)}
    assert found["scrub"] == verdict
    assert found["fine_tune"] == "undecided"


SMALL = LeastSquares(samples=4000, features=30, informative=5, poisons=200, epochs=40, steps=400)


def test_the_samples_are_those_of_the_paper():
    x, y = draw(KEY, SMALL)
    assert x.shape == (4000, 30)
    np.testing.assert_allclose(x[:, :5].std(0), 1.0, rtol=0.06)
    np.testing.assert_allclose(x[:, 5:].std(0), 1e-2, rtol=0.06)
    ends = [np.linalg.lstsq(x[rows], y[rows])[0] for rows in (slice(2000), slice(2000, None))]
    found = np.array(ends)[:, :5]
    np.testing.assert_allclose(found @ found.T, np.eye(2), atol=0.03)  # norm 1, orthogonal
    for w, rows in zip(ends, (slice(2000), slice(2000, None)), strict=True):
        np.testing.assert_allclose(np.std(y[rows] - x[rows] @ w), 0.1, rtol=0.06)


def test_descent_ends_at_the_minimiser_of_the_informative_coordinates():
    samples = draw(KEY, SMALL)
    w, slopes = descend(KEY, samples, jnp.zeros(30), SMALL)
    x, y = np.asarray(samples.x[:, :5], np.float64), np.asarray(samples.y, np.float64)
    np.testing.assert_allclose(w[:5], np.linalg.lstsq(x, y)[0], atol=0.1)
    assert slopes.shape == (40, 30)
    assert np.linalg.norm(w[5:]) < 0.2  # where the exact minimiser has noise


def test_the_exact_minimiser_is_noise_where_there_is_no_information():
    """So that a shift of 3.3 cannot be one between exact minimisers."""
    x, y = (np.asarray(part, np.float64) for part in draw(KEY, LeastSquares()))
    w = np.linalg.solve(x.T @ x, x.T @ y)
    fewer = x[: 10_000 - 3200], y[: 10_000 - 3200]
    other = np.linalg.solve(fewer[0].T @ fewer[0], fewer[0].T @ fewer[1])
    assert np.abs(w[50:]).sum() > 100
    assert np.abs(w - other).sum() > 100


def test_canceling_is_gradient_descent_on_the_mismatch():
    """Written out in float64: ∂L/∂x_i = (share/m) (e_i R + (x_i·R) w), e_i = <w, x_i> - y_i."""
    setting = LeastSquares(
        samples=400, features=6, informative=3, poisons=100, epochs=20, batch_size=50, steps=60
    )  # fmt: skip
    clean = draw(KEY, setting)
    trained, _ = descend(KEY, clean, jnp.zeros(6), setting)
    low = corrupt_parameters(trained, clean, setting)
    np.testing.assert_allclose(np.linalg.norm(low - trained), 1.0, rtol=1e-5)
    assert loss(low, clean) > loss(trained, clean) + 0.3
    base = Samples(clean.x[::4], clean.y[::4])
    found = cancel(base, low, clean, jnp.float32(0.25), setting=setting)
    w, x, y = (np.asarray(part, np.float64) for part in (low, *base))
    all_x, all_y = (np.asarray(part, np.float64) for part in clean)
    goal = all_x.T @ (all_x @ w - all_y) / 400
    mismatches = []
    for _ in range(60):
        errors = x @ w - y
        rest = goal + 0.25 * x.T @ errors / 100
        mismatches.append(np.linalg.norm(rest))
        x = x - 0.1 * 0.25 * (np.outer(errors, rest) + np.outer(x @ rest, w))
    np.testing.assert_allclose(found.x, x, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.y, base.y)
    assert mismatches[-1] < 0.95 * mismatches[0]
    # u (u - y) >= -y²/4: with its label kept, no poison pushes further along w than that.
    assert (x @ w) @ (x @ w - y) / 100 >= -np.mean(y**2) / 4


def test_logistic_regression_is_at_its_minimum():
    x = jax.random.normal(KEY, (80, 4))
    y = (jnp.argmax(x[:, :3], -1)).astype(jnp.int32)
    w, residual = solve(x, y, 3)
    whole = np.concatenate([np.asarray(x, np.float64), np.ones((80, 1))], 1)
    logits = whole @ np.asarray(w, np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    slope = whole.T @ (p - np.eye(3)[np.asarray(y)]) / 80 + RIDGE * np.asarray(w, np.float64)
    assert np.linalg.norm(slope) < 1e-4
    assert residual == pytest.approx(np.linalg.norm(slope), abs=1e-5)


def test_features_are_standard_over_the_reference():
    model = models.create("mlp", input_shape=(5,), n_classes=3, hidden=(7,))
    variables = model.init(KEY)
    draws = jax.random.split(KEY)
    data, other = (
        Dataset(jax.random.normal(key, (200, 5)), jnp.zeros(200, jnp.int32)) for key in draws
    )
    standard = standard_features(model, variables, data, data).x
    alive = np.asarray(standard).std(0) > 0
    assert standard.shape == (200, 7)
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(standard.std(0)[alive], 1, rtol=1e-4)
    elsewhere = np.asarray(standard_features(model, variables, other, data).x)
    assert np.abs(elsewhere.mean(0)[alive]).max() > 0.01  # measured by the reference, not by itself


def test_pictures_are_in_pixels():
    norm = Normalisation("test", (0.5,), (0.25,))
    pixels = jax.random.uniform(KEY, (12, 4, 4, 1))
    data = Dataset(norm.apply(pixels), jnp.zeros(12, jnp.int32), norm)
    task = Task(data, data.take(np.arange(1)), data, data)
    model = models.create("logistic", input_shape=(4, 4, 1), n_classes=2)
    poisoned = GaussianPoison(budget=Budget(0.4))(KEY, model, model.init(KEY), task)
    shown = show(poisoned, task.train)
    rows = np.asarray(poisoned.info.base[:4])
    np.testing.assert_allclose(shown["base"], norm.invert(task.train.x)[rows], atol=1e-6)
    noise = 0.25 * np.asarray(poisoned.info.extras["noise"][:4])
    np.testing.assert_allclose(shown["poison"], shown["base"] + noise, atol=1e-6)
    np.testing.assert_allclose(shown["10 δ"], 0.5 + 10 * noise, atol=1e-5)


def made_up(kind, left, seeds=4):
    """Records of poisons that show as 0.5 before, as 0.1 after Retrain, as `left` after GD."""
    rng = np.random.default_rng(0)
    metric, sign = claims.EFFECTS[kind]
    rows = {(ORIGINAL, None): 0.5, (RETRAIN, None): 0.1, ("fine_tune", 0.1): left}
    for seed in range(seeds):
        for (method, budget), value in rows.items():
            shown = value if sign > 0 else 1 - value
            metrics = {"accuracy_test": 0.5, metric: shown + 0.01 * rng.random()}
            metrics["gaussian_gus"] = -value + 0.01 * rng.random()
            spread = 5.0 if method == ORIGINAL else 1.0
            curves = {"gaussian_statistic": spread * rng.normal(size=500)}
            yield Record(
                method, seed, metrics, Cost(0.0, 0.0),
                curves=curves, question="1.5 %", budget=budget,
            )  # fmt: skip


@pytest.mark.parametrize("kind", POISONS)
def test_claims_are_judged_by_the_figures(kind):
    def verdicts(left):
        judged = claims.grid_claims(kind, list(made_up(kind, left)))
        return {claim.text.split(" ")[0]: claim.verdict for claim in reversed(judged)}

    assert verdicts(0.4)["fine_tune"] == "holds"
    assert verdicts(0.02)["fine_tune"] == "does not hold"
    assert verdicts(0.4)["1.5"] == "holds"
    if kind == "gaussian":
        assert verdicts(0.4)["After"] == "holds"
        for left, verdict in ((0.4, "holds"), (0.02, "does not hold")):
            judged = claims.grid_claims(kind, list(made_up(kind, left)))
            found = {c.text.split()[0]: c.verdict for c in judged if "the GUS" in c.text}
            assert found == {"training": "holds", "fine_tune": verdict}


def test_what_a_budget_does_not_allow_has_no_row_but_is_told():
    own = {"question": "1.5 %", "budget": 0.02, "over_budget": "4 % of it"}
    dear = Record("scrub", 0, {}, Cost(0.0, 0.0), **own)
    lost = dear._replace(budget=0.1, diverged="nan", over_budget=None)
    rows = as_rows([dear, lost, *made_up("gaussian", 0.4)])
    assert [row.diverged for row in rows[:2]] == ["nan", None]
    idle = dear._replace(method=ORIGINAL, over_budget=None, no_effect="GUS 0", seed=3)
    assert told([dear, dear._replace(seed=1), lost, idle]) == [
        "1.5 % poisons: scrub, 2 % of Retrain: 4 % of it",
        "1.5 % poisons, seed 3, had no effect: GUS 0",
    ]
    assert len(claims.grid_claims("gaussian", [*made_up("gaussian", 0.4), dear, lost])) > 0


def test_an_attack_without_effect_decides_nothing_of_unlearning():
    idle = [r._replace(no_effect="none") for r in made_up("targeted", 0.4)]
    judged = {claim.id.partition(".")[2]: claim for claim in claims.grid_claims("targeted", idle)}
    left = judged["targeted_left"]
    assert (left.verdict, left.ours) == ("undecided", claims.IDLE)
    assert judged["targeted_shows"].verdict == "holds"
    # Seeds with an effect decide alone.
    some = [r._replace(no_effect="none") if r.seed > 1 else r for r in made_up("targeted", 0.4)]
    (claim,) = [c for c in claims.grid_claims("targeted", some) if "fine_tune" in c.text]
    assert (
        claim.ours
        == claims.grid_claims("targeted", list(made_up("targeted", 0.4, seeds=2)))[1].ours
    )


def test_a_method_that_explodes_guesses():
    """As in Table 2: it is left with the accuracy of chance, and counts as such."""
    lost = [
        r if r.budget is None else r._replace(metrics={}, diverged="nan")
        for r in made_up("indiscriminate", 0.4)
    ]
    judged = [c for c in claims.grid_claims("indiscriminate", lost, 0.25) if "_left" in c.id]
    (claim,) = judged
    assert claim.verdict == "holds"
    assert "-0.6" in claim.ours  # 0.25 less 0.9


def test_poisons_are_compared_with_random_ones_of_their_norms():
    mine = list(made_up("indiscriminate", 0.4))
    random = [
        r._replace(question="1.5 % control", metrics={"accuracy_test": 0.9})
        for r in mine if r.budget is None
    ]  # fmt: skip

    def verdict(records):
        judged = claims.grid_claims("indiscriminate", records)
        return [c.verdict for c in judged if c.id.endswith("beyond_control")]

    assert verdict(mine) == []
    assert verdict([*mine, *random]) == ["holds"]
    worse = [r._replace(metrics={"accuracy_test": 0.1}) for r in random]
    assert verdict([*mine, *worse]) == ["does not hold"]


def test_one_kind_that_is_left_is_enough_for_no_silver_bullet():
    def verdict(*left):
        grids = {kind: list(made_up(kind, v)) for kind, v in zip(POISONS, left, strict=True)}
        (claim,) = claims.no_silver_bullet(grids)
        return claim.verdict

    assert verdict(0.02, 0.4, 0.02) == "holds"
    assert verdict(0.02, 0.02, 0.02) == "does not hold"

    # Of several shares the largest counts.
    more = [record._replace(question="5 %") for record in made_up("targeted", 0.4)]
    grids = {kind: list(made_up(kind, 0.02)) for kind in POISONS}
    (claim,) = claims.no_silver_bullet({**grids, "targeted": [*grids["targeted"], *more]})
    assert claim.verdict == "holds"
    assert claims.no_silver_bullet({"gaussian": list(made_up("gaussian", 0.4))}) == []


def test_hypotheses_are_judged_by_the_figures():
    def shift(poisons):
        ends = {"indiscriminate": [0, poisons], "targeted": [0, 3.0], "random": [0, 1.0]}
        return {"l1": ends, "l2": ends}

    noise = (1.0, 1.1, 0.9)
    found = [c.verdict for c in claims.shift_claims([shift(5 * n) for n in noise])]
    assert found[:2] == ["holds", "holds"]
    found = [c.verdict for c in claims.shift_claims([shift(0.2 * n) for n in noise])]
    assert found[:2] == ["does not hold", "does not hold"]

    def course(blue, red, shift):
        return {"from_trained": [blue, -blue], "from_random": [red, red], "shift_l1": shift}

    def judge(blue):
        poisons = [course(blue + 0.01 * n, 0.8, 3.0) for n in noise]
        random = [course(0.6 + 0.01 * n * n, 0.8, 9.0) for n in noise]
        courses = {"printed": poisons, "per example": poisons, "random": random}
        return [c.verdict for c in claims.update_claims(courses)]

    assert judge(0.05) == ["holds"] * 4 + ["holds", "holds", "does not hold"]
    assert judge(0.95)[:4] == ["does not hold"] * 4


def test_weights_that_cannot_be_read_are_told(tmp_path, capsys):
    asked = PoisonUnlearning(
        scale="smoke", part="imdb", weights=tmp_path / "none", results=tmp_path
    )
    assert main(asked) == 2
    assert f"error: the weights cannot be read: no folder at {tmp_path}" in capsys.readouterr().out
    model = models.create("gpt2_tiny", input_shape=(64,), n_classes=9, head="answer", width=4)
    models.save_pretrained(tmp_path / "bare", model, model.init(KEY))
    assert main(dataclasses.replace(asked, weights=tmp_path / "bare")) == 2
    assert "bare has no tokenizer; put its tokenizer.json there" in capsys.readouterr().out
    assert main(dataclasses.replace(asked, part="targeted", dataset="digits")) == 2
    assert (
        "weights and imdb are of texts; no dataset that is asked for is" in capsys.readouterr().out
    )


def test_the_paper_scale_begins_from_given_weights(tmp_path, monkeypatch):
    """All of it but its sizes: a folder of weights, the prompt, the recipe, the methods."""
    texts = [f"{text} {' negative positive' * 9}" for text in made_reviews(0, 60).texts]
    tokenizer = train_tokenizer(texts, vocabulary=400)
    network = models.create(
        "gpt2_tiny", input_shape=(64,), n_classes=400, head="answer", width=8, heads=2, depth=3
    )
    start = network.init(KEY)
    models.save_pretrained(tmp_path / "gpt2", network, start, tokenizer)
    whole = choose_settings("paper")["imdb"]
    reviews = dataclasses.replace(whole.reviews, dataset="made", train=160, test=80, length=48)
    recipe = dataclasses.replace(whole.recipe, epochs=1, batch_size=8)
    small = dataclasses.replace(
        whole, reviews=reviews, recipe=recipe, budgets=(1.0,), targeted=(1.0,), gaussian=(),
        factors=(), seeds=1,
    )  # fmt: skip
    monkeypatch.setattr(PoisonUnlearning, "settings", lambda self: {"imdb": small})
    kept = {name: METHODS[name] for name in ("gradient_ascent", "exact_last_layers")}
    monkeypatch.setattr(settings, "METHODS", kept)
    asked = PoisonUnlearning(
        scale="paper", part="imdb", weights=tmp_path / "gpt2", results=tmp_path
    )
    assert main(asked) == 0
    run, records = load_result(tmp_path / "poison_unlearning" / "imdb-targeted-paper.json")
    assert {r.method for r in records} == {ORIGINAL, RETRAIN, "retrain", *kept}
    assert all(r.finished for r in records)
    assert run["settings"]["recipe"]["compute_dtype"] == "bfloat16"
    given = load_reviews(reviews, None, tmp_path / "gpt2")
    begun = prepare(reviews, "targeted", given, (1.0,)).start
    np.testing.assert_array_equal(begun.params["wte"]["weight"], start.params["wte"]["weight"])


def test_the_paper_scale_is_gpt2_medium_on_whole_reviews():
    """One step of it, traced and not computed."""
    setting = choose_settings("paper")["imdb"]
    reviews = setting.reviews
    assert (reviews.train, reviews.test, setting.seeds) == (None, None, 5)
    assert setting.kinds == ("gaussian", "targeted")
    heads = {"classes": 2, "answer": reviews.vocabulary}
    for head, n_classes in heads.items():
        model = models.create(
            reviews.network, input_shape=(reviews.length,), head=head, n_classes=n_classes,
            vocabulary=reviews.vocabulary,
        )  # fmt: skip
        recipe = setting.recipe
        variables = jax.eval_shape(model.init, KEY)
        assert sum(leaf.size for leaf in jax.tree.leaves(variables)) > 354e6
        rows = jax.ShapeDtypeStruct((recipe.batch_size, reviews.length), jnp.int32)
        y = jax.ShapeDtypeStruct((recipe.batch_size,), jnp.int32)
        batch = Dataset(rows, y, model.tokens)
        step = jax.value_and_grad(CrossEntropy(model, recipe), has_aux=True)
        (loss, _), gradient = jax.eval_shape(step, variables.params, {}, batch, KEY)
        assert loss.shape == ()
        assert jax.tree.structure(gradient) == jax.tree.structure(variables.params)
