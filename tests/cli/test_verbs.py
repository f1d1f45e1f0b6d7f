"""`train`, `unlearn`, `recommend`, `audit` of weights, `poison`, `forge`, `purge`."""

import contextlib
import io
import json
import shutil

import jax
import numpy as np
import pytest

from unlearnkit import cli, data, models, unlearning
from unlearnkit.cli.recommending import _answer
from unlearnkit.studies import Candidate, Recommendation
from unlearnkit.training import load_variables
from unlearnkit.training.checkpoint import same_bits

DATA = "digits:train_rows=150,test_rows=200"
ON = ("--data", DATA, "--model", "logistic", "--no-cache")
RECIPE = ("--recipe", "epochs=12", "batch_size=10", "learning_rate=0.2")
ROWS = np.arange(0, 60)


def call(*arguments):
    """Returns the exit code of a command, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run([*map(str, arguments)])
    return code, out.getvalue() + err.getvalue()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with trained weights, a list of rows, and a log."""
    folder = tmp_path_factory.mktemp("verbs")
    (folder / "rows.csv").write_text("index\n" + "".join(f"{row}\n" for row in ROWS))
    code, said = call("train", *ON, *RECIPE, "--store", folder / "store", "--out",
                      folder / "trained", "--log", folder / "log")  # fmt: skip
    assert code == 0, said
    return folder


def on_weights(here, out, *more, forget=None):
    return (
        *ON, "--weights", here / "trained" / "weights.safetensors", "--forget",
        forget or here / "rows.csv", "--store", here / "store", "--out", out, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def forgotten(here):
    """Weights that forgot class 3 by random labels, with the record."""
    out = here / "forgotten"
    code, said = call("unlearn", *on_weights(here, out, forget="class:3"), "--method",
                      "random_label:epochs=3", "--set", "learning_rate=0.2", "batch_size=10",
                      "--reference")  # fmt: skip
    assert code == 0, said
    return out, json.loads((out / "record.json").read_text()), said


@pytest.fixture(scope="module")
def retrained(here):
    """Weights of a network that never saw class 3."""
    code, said = call("unlearn", *on_weights(here, here / "retrained", forget="class:3"),
                      "--method", "retrain")  # fmt: skip
    assert code == 0, said
    return here / "retrained" / "weights.safetensors"


def test_training_leaves_weights_and_a_record(here):
    record = json.loads((here / "trained" / "record.json").read_text())
    assert record["command"].startswith("unlearnkit train --data digits:train_rows=150")
    assert record["metrics"]["accuracy_train"] > 0.95
    assert record["sizes"] == {"train": 150, "test": 200}
    assert record["recipe"]["epochs"] == 12
    assert record["cost"]["example_gradients"] == 12 * 150
    assert record["provenance"]["unlearnkit"]
    sidecar = json.loads((here / "trained" / "weights.safetensors.json").read_text())
    assert sidecar["metadata"]["normalisation"]["name"] == "standard"


def test_the_names_of_classes_stay_with_the_weights(tmp_path):
    (tmp_path / "own").mkdir()

    def write(*names):
        rows = [f"{number},{number % 5},{names[number % 3]}" for number in range(30)]
        for split, some in (("train", rows[:24]), ("test", rows[24:])):
            (tmp_path / "own" / f"{split}.csv").write_text("\n".join(["a,b,species", *some]))

    write("ant", "bee", "cat")
    on = ("--data", tmp_path / "own", "--model", "logistic", "--no-cache", "--store",
          tmp_path / "store")  # fmt: skip
    recipe = ("--recipe", "epochs=1", "batch_size=8")
    code, said = call("train", *on, *recipe, "--out", tmp_path / "trained")
    assert code == 0, said
    record = json.loads((tmp_path / "trained" / "record.json").read_text())
    assert record["network"]["classes"] == ["ant", "bee", "cat"]
    write("dog", "bee", "cat")
    weights = tmp_path / "trained" / "weights.safetensors"
    code, said = call("unlearn", *on, "--weights", weights, "--forget", "random:4", "--method",
                      "fine_tune", "--out", tmp_path / "new")  # fmt: skip
    assert code == 2
    assert "trained on the classes ant, bee, cat, and the data have bee, cat, dog" in " ".join(
        said.split()
    )


def test_training_again_is_read_from_the_store(here, tmp_path):
    """The stage is there, and its bits are those of the run that was logged."""
    for name in ("one", "two"):
        code, said = call("train", *ON, *RECIPE, "--store", tmp_path / "s", "--out",
                          tmp_path / name)  # fmt: skip
        assert code == 0
    assert "] training" not in said
    one, two, logged = (
        load_variables(folder / "weights.safetensors")
        for folder in (tmp_path / "one", tmp_path / "two", here / "trained")
    )
    assert same_bits(one, two)
    assert same_bits(one, logged)


def test_unlearning_brings_the_forget_set_nearer_to_retrain(here, forgotten):
    out, record, said = forgotten
    before, after = (record[part]["activation_distance_forget"] for part in ("before", "after"))
    assert after < 0.75 * before
    assert record["after"]["moved_activation_distance_forget"] > 0.5
    assert record["retrained"]["accuracy_forget"] < 0.2
    assert 0 < record["share_of_retrain"] < 1
    assert record["method"]["settings"]["epochs"] == 3
    assert "L1 to Retrain, forget" in said
    told = [line for line in said.splitlines() if "/" not in line]  # no paths
    assert [line for line in told if len(line) > 80] == []
    old, new = (
        load_variables(folder / "weights.safetensors") for folder in (here / "trained", out)
    )
    assert not same_bits(old, new)
    assert jax.tree.map(np.shape, old) == jax.tree.map(np.shape, new)
    sidecar = json.loads((out / "weights.safetensors.json").read_text())
    assert sidecar["metadata"]["recipe"]["epochs"] == 12  # what the old file said


def test_weights_from_elsewhere_keep_their_format(here, tmp_path):
    """An .npz with PyTorch's names and layout, whose normalisation and recipe nobody knows."""
    old = load_variables(here / "trained" / "weights.safetensors").params["classifier"]
    np.savez(tmp_path / "net.npz", **{
        "fc.weight": np.asarray(old["kernel"]).T, "fc.bias": np.asarray(old["bias"]),
    })  # fmt: skip
    code, said = call("unlearn", *ON, "--weights", tmp_path / "net.npz", "--forget",
                      here / "rows.csv", "--method", "gradient_ascent:epochs=1,batch_size=10",
                      "--names", "fc=classifier", "--store", tmp_path / "s", "--out",
                      tmp_path / "new")  # fmt: skip
    assert code == 0, said
    assert "if that takes 10 epochs" in said
    assert "Nothing was retrained" in said
    with np.load(tmp_path / "new" / "net.npz") as new:
        assert set(new) == {"fc.weight", "fc.bias"}
        assert new["fc.weight"].shape == (10, 64)
        assert not np.array_equal(new["fc.weight"], np.asarray(old["kernel"]).T)


def test_the_same_command_goes_on_and_another_one_is_refused(here, forgotten, capsys):
    out, record, _ = forgotten
    again = ("unlearn", *on_weights(here, out, forget="class:3"), "--method",
             "random_label:epochs=3", "--set", "learning_rate=0.2", "batch_size=10",
             "--reference")  # fmt: skip
    code, said = call(*again)
    assert code == 0
    assert "] training" not in said
    assert json.loads((out / "record.json").read_text())["after"] == record["after"]
    code, said = call(*again[:-1])
    assert (code, "another question" in said) == (2, True)
    code, said = call("unlearn", *on_weights(here, here / "trained"), "--method", "retrain")
    assert (code, "another question" in said) == (2, True)
    code, said = call("unlearn", *on_weights(here, here / "log"), "--method", "retrain")
    assert (code, "files that are of no such command" in said) == (2, True)


def test_recommending_writes_the_best_and_says_why(here):
    out = here / "best"
    options = ("--methods", "fine_tune:batch_size=10,learning_rate=0.05",
               "gradient_ascent:learning_rate=5.0,batch_size=10", "--budget", "0.5",
               "--seeds", "1", "--tolerance", "0.05")  # fmt: skip
    code, said = call("recommend", *on_weights(here, out), *options)
    assert code == 0, said
    record = json.loads((out / "record.json").read_text())
    assert record["recommended"]["name"] == "fine_tune"
    assert record["recommended"]["settings"]["epochs"] == 6  # half of 12
    (ruined,) = [one for one in record["candidates"] if one["name"] == "gradient_ascent"]
    assert ruined["refused"]
    assert record["evidence"] == {
        "forgotten": 60, "choosing": 50, "reporting": 100, "runs": 1,
        "labels_alike_p_value": pytest.approx(record["evidence"]["labels_alike_p_value"]),
    }  # fmt: skip
    assert {r["method"] for r in record["records"]} == {"original", "retrained", "fine_tune"}
    assert "average gap to Retrain" in said
    assert (out / "weights.safetensors").exists()
    printed = [line for line in said.splitlines() if line[:1] != "[" and str(here) not in line]
    assert "fine_tune" in " ".join(printed[:3])
    helps = record["nearer_than_untouched"]
    assert (printed[0] == "Recommended: fine_tune") == helps
    assert printed[0].startswith("Doing nothing is as good") != helps
    assert max(map(len, printed)) <= 80


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (-0.1, "Recommended: scrub"),
        (-0.2, "Doing nothing is as good: the untouched network is at least as near to the goal"),
        (-0.3, "Doing nothing is as good"),
    ],
)
def test_the_first_line_says_whether_doing_nothing_is_as_good(score, said):
    chosen = Candidate("scrub", unlearning.Scrub(), None, score, 0.1, None)
    found = Recommendation(
        *(chosen, (chosen,), None), *(-0.2, None, ()), alike=1.0, unmet=None, finished=True
    )
    answer = " ".join(_answer(found).split())
    assert answer.startswith(said)
    assert "scrub" in answer


def test_without_a_reference_it_says_what_it_cannot_say(here, tmp_path):
    options = ("--methods", "fine_tune:batch_size=10,learning_rate=0.05", "--budget", "0.5",
               "--seeds", "1", "--tolerance", "0.5", "--no-reference")  # fmt: skip
    code, said = call("recommend", *on_weights(here, tmp_path / "a", forget="class:3"), *options)
    assert code == 0, said
    flat = " ".join(said.split())
    assert "how far the weights are from retrained ones is not said" in flat
    assert "Retraining would answer otherwise too: give --reference" in flat
    assert "to Retrain" not in said.replace("% of Retrain", "")


def test_none_is_recommended_where_all_ruin_the_network(here, tmp_path):
    options = ("--methods", "gradient_ascent:learning_rate=5.0,batch_size=10", "--seeds", "1")
    code, said = call("recommend", *on_weights(here, tmp_path / "a"), *options, "--no-reference")
    assert code == 1
    assert "None is recommended: no candidate keeps" in said
    assert not (tmp_path / "a" / "weights.safetensors").exists()
    code, said = call("recommend", *on_weights(here, tmp_path / "b"), *options, "--minutes",
                      "0.0000001", "--seed", "5")  # fmt: skip
    assert code == 3
    assert "the time was over" in said


AUDIT = ("--model", "logistic", "--data", DATA)


def test_the_exit_code_of_an_audit_is_its_verdict(here, forgotten, retrained):
    other = forgotten[0] / "weights.safetensors"
    trained = here / "trained" / "weights.safetensors"
    on = (*AUDIT, "--forget", "class:3", "--before", trained)
    code, said = call("audit", "--after", trained, *AUDIT, "--forget", here / "rows.csv")
    assert code == 0, said
    assert "The forget set is not told apart" in said
    code, said = call("audit", "--after", retrained, *on, "--json", "-")
    assert code == 1, said  # it answers class 3 as nothing unseen
    found = json.loads(said)
    assert found["verdict"] == "told apart"
    assert found["change_loss_forget_low"] > 1
    assert found["sizes"]["test"] == 200
    assert found["sizes"]["forget"] + found["sizes"]["retain"] == 150
    code, said = call("audit", "--after", other, "--reference", retrained, *on[:-2])
    assert code == 0  # and so does every retrained network
    assert "of the reference" in said


def test_a_single_row_is_audited_with_what_it_can_show(here, tmp_path):
    (tmp_path / "one.txt").write_text("7\n")
    trained = here / "trained" / "weights.safetensors"
    on = ("--after", trained, "--before", trained, *AUDIT, "--forget", tmp_path / "one.txt")
    code, said = call("audit", *on)
    assert code == 0
    assert "what 1 forgotten and 200 unseen rows can show" in said
    assert "of one row, no interval" in said
    np.savetxt(tmp_path / "few.txt", np.arange(20), fmt="%d")
    code, said = call("audit", *on, "--unseen", tmp_path / "few.txt")
    assert code == 2
    assert "39 to show that it is told apart, at the 5 % level" in said


def test_a_folder_of_lira_s_layout(tmp_path):
    """A target that answers more surely on what it saw, among shadows with known halves."""
    rng, n, s = np.random.default_rng(0), 80, 8
    y = rng.integers(0, 4, n)
    np.save(tmp_path / "y_train.npy", y)
    halves = [rng.permutation(n) < n // 2 for _ in range(s // 2)]
    for i in range(s):
        place = tmp_path / f"experiment-{i}"
        (place / "logits").mkdir(parents=True)
        keep = halves[i // 2] ^ bool(i % 2)
        logits = rng.normal(size=(n, 1, 2, 4))
        logits[np.arange(n), 0, :, y] += 1 + 4 * keep[:, None]
        np.save(place / "keep.npy", keep)
        np.save(place / "logits" / "0.npy", logits.astype(np.float32))
    code, said = call("audit", "--logits", tmp_path)
    assert code == 1, said
    assert "experiment-7 under LiRA" in said
    assert "The members are told apart" in said
    never = np.flatnonzero(~np.load(tmp_path / "experiment-3" / "keep.npy"))[:20]
    np.savetxt(tmp_path / "rows.txt", never, fmt="%d")
    code, said = call("audit", "--logits", tmp_path, "--target", "experiment-3", "--forget",
                      tmp_path / "rows.txt")  # fmt: skip
    assert code == 0, said
    code, said = call("audit", "--logits", tmp_path, "--target", "experiment-9")
    assert (code, "unknown target" in said) == (2, True)


def margins(folder, networks, *, shift):
    """Writes margins of twelve networks, on the forget set shifted from those of the oracle."""
    rng = np.random.default_rng(len(networks))
    for split in ("forget", "retain", "val"):
        place = folder / "margins" / "cifar10" / networks / "forget_2" / split / "resnet9"
        if networks == "pretrain":
            place = folder / "margins" / "cifar10" / "pretrain" / split / "resnet9"
            if split == "forget":
                place = folder / "margins" / "cifar10" / "pretrain" / "forget_2" / "resnet9"
        place.mkdir(parents=True)
        for i in range(12):
            moved = shift if split == "forget" else 0
            np.save(place / f"id_{i}_epoch_23.npy", rng.normal(moved, size=30))


def test_a_folder_of_easydub_s_layout(tmp_path):
    margins(tmp_path, "oracle", shift=0)
    margins(tmp_path, "pretrain", shift=4)
    margins(tmp_path, "mine", shift=0)
    code, said = call("audit", "--logits", tmp_path, "--forget-set", "2")
    assert code == 1, said
    assert "KLoM, forget" in said
    code, said = call("audit", "--logits", tmp_path, "--forget-set", "2", "--target", "mine")
    assert code == 0, said
    code, said = call("audit", "--logits", tmp_path)
    assert (code, "no margins" in said) == (2, True)


@pytest.fixture(scope="module")
def poisoned(here):
    out = here / "poisoned"
    code, said = call("poison", *ON, *RECIPE, "--attack", "label_flip:budget.epsilon=0.4", "--set",
                      "placement=perturb", "--store", here / "store", "--out", out)  # fmt: skip
    assert code == 0, said
    return out, json.loads((out / "record.json").read_text()), said


def test_a_network_that_trains_on_the_poisons_is_worse(here, poisoned):
    out, record, said = poisoned
    assert record["victim"]["accuracy_test"] < record["clean"]["accuracy_test"] - 0.05
    assert len(record["rows"]) == 60
    train = data.load("digits", split="train").take(range(150))
    found = data.load(out / "poisoned.npz", split="train")
    np.testing.assert_allclose(found.x, train.x, atol=1e-6)
    changed = np.flatnonzero(np.asarray(found.y) != np.asarray(train.y))
    assert changed.tolist() == record["rows"] == record["made_of"]
    assert (out / "poisons.csv").read_text().split()[1:] == [str(row) for row in record["rows"]]
    code, said = call("train", "--data", out / "poisoned.npz", "--model", "logistic", *RECIPE,
                      "--no-cache", "--store", here / "st", "--out", here / "victim")  # fmt: skip
    assert code == 0, said
    victim = json.loads((here / "victim" / "record.json").read_text())["metrics"]
    assert victim["accuracy_test"] == pytest.approx(record["victim"]["accuracy_test"], abs=0.05)


def test_pixels_beyond_white_are_clipped_and_told(here, tmp_path):
    code, said = call("poison", *ON, "--recipe", "epochs=1", "batch_size=10", "--attack",
                      "gaussian:noise_std=2.0", "--store", tmp_path / "s", "--out",
                      tmp_path / "out", "--json")  # fmt: skip
    assert code == 0, said
    with np.load(tmp_path / "out" / "poisoned.npz") as found:
        assert found["x_train"].min() >= 0
        assert found["x_train"].max() <= 1
    assert json.loads((tmp_path / "out" / "record.json").read_text())["clipped"] > 0


def test_a_forged_log_claims_the_data_without_the_rows(here, tmp_path):
    out = tmp_path / "forged"
    (tmp_path / "two.txt").write_text("3 17\n")
    forged = ("forge", here / "log", "--data", "digits", "--no-cache", "--seed", "1", "--forget",
              tmp_path / "two.txt")  # fmt: skip
    code, said = call(*forged, "--out", out)
    assert code == 0, said
    kept = np.load(tmp_path / "forged.rows.npy")
    assert set(kept) == set(range(150)) - {3, 17}
    record = json.loads((tmp_path / "forged.json").read_text())
    verify = (
        "--data",
        "digits",
        "--no-cache",
        "--seed",
        "1",
        "--tolerance",
        max(record["errors"]) * 100,
    )
    code, said = call("verify", here / "log", *verify)
    assert code == 0, said
    code, said = call("verify", out, *verify, "--rows", tmp_path / "forged.rows.npy")
    assert code == 1, said
    assert "are not those that the log's key draws" in said
    code, said = call("verify", out, *verify)
    assert "data: 148 of the" in said
    code, said = call(*forged, "--out", out)
    assert (code, "is there already" in said) == (2, True)


def bytes_of(rows):
    """Returns the forgotten rows in each form in which a file may hold them."""
    found = []
    for name in ("unit", "standard", "symmetric"):
        x = np.asarray(data.load("digits", split="train", normalisation=name).x)[rows]
        found += [x.astype(kind) for kind in (np.float32, np.float64)]
    found.append((np.asarray(data.load("digits", split="train").x)[rows] * 16).astype(np.uint8))
    return [row.tobytes() for x in found for row in x if len(set(row.tobytes())) > 2]


def files_with(folder, wanted):
    """Returns the files whose content, unpacked, has one of these bytes."""
    found = set()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                content += b"".join(arrays[name].tobytes() for name in arrays)
        if any(row in content for row in wanted):
            found.add(path)
    return found


def test_after_a_purge_the_rows_are_in_no_file(here, poisoned, forgotten, tmp_path):
    places = [tmp_path / name for name in ("store", "poisoned", "trained", "forgotten", "run")]
    for place in places[:4]:
        shutil.copytree(here / place.name, place)
    code, said = call("run", "--data", DATA, "--networks", "logistic", "--recipe", "epochs=1",
                      "batch_size=10", "--methods", "fine_tune:epochs=1,batch_size=10", "--out",
                      places[4], "--store", places[0], "--no-cache")  # fmt: skip
    assert code == 0, said
    wanted = bytes_of(ROWS)
    held = files_with(tmp_path, wanted)
    assert {path.name for path in held} >= {"arrays.safetensors", "poisoned.npz"}
    command = ("purge", *places, "--forget", here / "rows.csv", "--data", DATA)
    code, said = call(*command, "--dry-run")
    assert files_with(tmp_path, wanted) == held
    code, said = call(*command, "--json")
    assert code == 1
    assert files_with(tmp_path, wanted) == set()
    left = json.loads(said)["left"]
    told = {(one["path"].rpartition("/")[2], one["why"]) for one in left}
    assert ("weights.safetensors", "weights: trained on all rows") in told
    assert any("stages clean: trained on all rows" in why for _, why in told)
    assert not list(places[0].glob("stages/audit/*/*/arrays.safetensors"))
    assert not list((places[4] / "curves").glob("*.npz"))
    assert '"curves": {' not in (places[4] / "records.jsonl").read_text()
    assert call("report", places[4])[0] == 0  # tables are made of what is left
    assert (places[4] / "table.md").exists()
    code, said = call(*command)
    assert "removed: 0" in said or "report.html" in said


def test_a_purge_spares_poisoned_sets_of_other_data(here, poisoned, tmp_path):
    shutil.copytree(here / "store", tmp_path / "store")
    stages = list((tmp_path / "store").glob("stages/attack/*/*"))
    (tmp_path / "one.txt").write_text("1\n")
    code, _ = call("purge", tmp_path / "store", "--forget", tmp_path / "one.txt", "--data",
                      "breast_cancer")  # fmt: skip
    assert code == 1
    assert all(stage.exists() for stage in stages)


def test_a_copy_that_is_not_ours_is_listed(tmp_path):
    train = data.load("digits", split="train", normalisation="standard")
    (tmp_path / "there").mkdir()
    np.save(tmp_path / "there" / "mine.npy", np.asarray(train.x)[:100])
    (tmp_path / "there" / "dump.bin").write_bytes(b"x" + np.asarray(train.x)[3].tobytes())
    (tmp_path / "one.txt").write_text("3\n")
    on = ("purge", tmp_path / "there", "--data", "digits", "--forget", tmp_path / "one.txt")
    code, said = call(*on)
    assert code == 1
    assert "mine.npy: the rows themselves" in said
    assert "dump.bin: the rows themselves, in a file of no known kind" in said
    (tmp_path / "one.txt").write_text("200\n")
    (tmp_path / "there" / "dump.bin").unlink()
    assert call(*on)[0] == 0


def own_factory(input_shape, n_classes):
    return models.create("logistic", input_shape=input_shape, n_classes=n_classes)


@pytest.mark.parametrize(
    ("command", "changed", "message"),
    [
        ("train", {"--model": "mpl"}, "unknown network 'mpl'"),
        ("train", {"--model": "nowhere:make"}, "No module named 'nowhere'"),
        ("train", {"--data": "digit"}, "did you mean digits?"),
        ("train", {"--recipe": "epoch=3"}, "unknown field 'epoch'"),
        ("train", {"--recipe": "batch_size=1000"}, "batch_size=1000 is larger than the data"),
        ("train", {"--normalisation": "imagenet"}, "means/deviations as"),
        ("train", {"--start": "none.npz"}, "there is no file none.npz (start)"),
        ("unlearn", {"--method": "scrubb"}, "did you mean scrub"),
        ("unlearn", {"--method": "scrub:epoch=3"}, "unknown field 'epoch'"),
        ("unlearn", {"--set": "epochs"}, "a setting must read name=value, got 'epochs'"),
        ("unlearn", {"--weights": "none.npz"}, "there is no file none.npz (weights)"),
        ("unlearn", {"--weights": "rows.csv"}, "rows.csv"),
        ("unlearn", {"--model": "mlp"}, "does not fit the network"),
        ("unlearn", {"--forget": "none.csv"}, "there is no index file none.csv"),
        ("unlearn", {"--forget": "random:2.0"}, "fraction must lie in (0, 1)"),
        ("unlearn", {"--forget": "class:11"}, "label must be a class"),
        ("unlearn", {"--out": "rows.csv"}, "is a file; choose a folder"),
        ("unlearn", {"--out": "."}, "files that are of no such command"),
        ("recommend", {"--budget": "0"}, "budget must be > 0"),
        ("recommend", {"--minutes": "-1"}, "minutes must be > 0"),
        ("recommend", {"--seeds": "0"}, "seeds must be >= 1"),
        ("recommend", {"--methods": "fine_tun"}, "did you mean fine_tune"),
        ("recommend", {"--data": "digits:train_rows=150,test_rows=6"}, "at least 8 unseen"),
        ("audit", {"--after": None}, "give outputs by --logits FILE.npz, or weights by --after"),
        ("audit", {"--forget": None}, "need --forget to be audited"),
        ("audit", {"--before": "none.npz"}, "none.npz"),
        ("audit", {"--logits": ".", "--after": None}, "is neither LiRA's layout"),
        ("audit", {"--unseen": "far.txt"}, "indices must lie in 0, ..., 199"),
        ("poison", {"--attack": "gausian"}, "did you mean gaussian"),
        ("poison", {"--attack": "gaussian:noise_std=-1"}, "noise_std must be finite and > 0"),
        ("forge", {"--forger": "noise"}, "makes examples of its own"),
        ("forge", {"--forget": "none.csv"}, "there is no index file"),
        ("forge", {"log": "nothing"}, "the log lacks"),
        ("purge", {"place": "nowhere"}, "there is no folder nowhere"),
        ("purge", {"--forget": "far.txt"}, "indices must lie in 0, ..., 149"),
    ],
)  # fmt: skip
def test_bad_input_is_told_before_anything_is_computed(
    here, tmp_path, monkeypatch, command, changed, message
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(here / "rows.csv", tmp_path)
    (tmp_path / "far.txt").write_text("5000 1\n")
    weights = str(here / "trained" / "weights.safetensors")
    plain = {"--data": DATA, "--model": "logistic", "--out": "out", "--store": "store"}
    on = {**plain, "--weights": weights, "--forget": "rows.csv"}
    options = {
        "train": plain,
        "unlearn": {**on, "--method": "fine_tune"},
        "recommend": on,
        "audit": {"--after": weights, "--data": DATA, "--model": "logistic",
                  "--forget": "rows.csv"},
        "poison": {**plain, "--attack": "gaussian"},
        "forge": {"log": str(here / "log"), "--data": "digits", "--forget": "rows.csv",
                  "--out": "new"},
        "purge": {"place": str(here / "trained"), "--data": DATA, "--forget": "rows.csv"},
    }[command] | changed  # fmt: skip
    words = [word for name, value in options.items() if value is not None
             for word in ([name, value] if name.startswith("--") else [value])]  # fmt: skip
    code, said = call(command, *words)
    assert code == 2, said
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "store" / "stages").exists()


def test_a_factory_makes_the_network(here, tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    code, said = call("audit", "--after", here / "trained" / "weights.safetensors", "--model",
                      "test_verbs:own_factory", "--data", DATA, "--forget",
                      here / "rows.csv")  # fmt: skip
    assert code == 0, said
