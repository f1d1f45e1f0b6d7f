"""A study that is killed in the middle of a training goes on inside it."""

import shutil
import signal
import sys

import killed_training
import other_process
import pytest
import tiny_study
from tiny_study import KEY, study, table

from unlearnkit.auditing import Klom
from unlearnkit.data import RandomForget
from unlearnkit.defences import MaxUp
from unlearnkit.poisoning import Budget, LabelFlip
from unlearnkit.studies import StoreWarning, run, stage_cache
from unlearnkit.unlearning import Scrub


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(stage_cache, "CHECKPOINT_SECONDS", 1e-9)


@pytest.fixture(scope="module")
def expected():
    return table(run(study(**killed_training.PARTS), KEY))


class Epochs:
    """Notes the epochs of each stage."""

    def __init__(self):
        self.seen = {}

    def __call__(self, said, done, total):
        if done:
            self.seen.setdefault(said, []).append(done)


def unfinished(store):
    return list(store.glob("unfinished/*/*/*/*"))


@pytest.mark.parametrize(
    ("stage", "left"),
    [("training the references", [4, 5, 6]), ("training on clean data, seed 1 of 1", [5, 6])],
)
def test_a_kill_inside_a_training_loses_at_most_an_epoch(tmp_path, expected, stage, left):
    script = killed_training.__file__
    process = other_process.start(script, stage, 4, tmp_path)
    _, errors = process.communicate(timeout=other_process.LIMIT_SECONDS)
    assert process.returncode == -signal.SIGKILL, errors
    assert unfinished(tmp_path)
    epochs = Epochs()
    records = killed_training.records(tmp_path, epochs)
    assert epochs.seen[stage] == left
    assert table(records) == expected
    assert unfinished(tmp_path) == []


def interrupted(store, **options):
    """Leaves the checkpoints of an original that was interrupted in its third epoch."""

    def interrupt(said, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run(study(), KEY, store=store, on_stage=interrupt, **options))
    return unfinished(store)


def test_a_damaged_checkpoint_is_told_and_the_training_begins_again(tmp_path):
    for path in interrupted(tmp_path):
        path.write_bytes(b"{}")
    epochs = Epochs()
    with pytest.warns(StoreWarning, match="this training begins again"):
        records = list(run(study(), KEY, store=tmp_path, on_stage=epochs))
    assert epochs.seen["training the originals (2 seeds)"] == [1, 2, 3, 4] * 2
    assert table(records) == table(run(study(), KEY))
    assert unfinished(tmp_path) == []


def test_lanes_go_on_together(tmp_path):
    options = {"batching": "vmap", "lanes": 4}
    interrupted(tmp_path, **options)
    epochs = Epochs()
    records = list(run(study(), KEY, store=tmp_path, on_stage=epochs, **options))
    assert epochs.seen["training the originals (2 seeds)"] == [3, 4]
    assert table(records) == table(run(study(), KEY, **options))
    assert unfinished(tmp_path) == []


class Interruptions:
    """Counts the calls that train, and interrupts before the next where `allowed` are over."""

    def __init__(self, monkeypatch):
        self.allowed, self.made = None, 0
        for name in ("unlearnkit.training.fit", "unlearnkit.unlearning._passes"):
            module = sys.modules[name]
            monkeypatch.setattr(module, "take_steps", self.counted(module.take_steps))

    def counted(self, take_steps):
        def counting(*args, **options):
            if self.allowed == 0:
                raise KeyboardInterrupt
            self.made += 1
            self.allowed = None if self.allowed is None else self.allowed - 1
            return take_steps(*args, **options)

        return counting


INSIDE = {
    "attacks": {"flip": LabelFlip(budget=Budget(0.2), placement="perturb")},
    "defences": {"max_up": MaxUp(copies=2, augmentation="noise")},
    "methods": {"scrub": Scrub(epochs=3, batch_size=20, max_epochs=1)},
    "audits": {"klom": Klom(count=2)},
    "forget": {},
    "seeds": 1,
}
"""Trainings in a defence, in a method, and of ensembles, together and one after another."""


def test_methods_defences_and_ensembles_go_on_inside_their_trainings(tmp_path, monkeypatch):
    interruptions = Interruptions(monkeypatch)
    whole = table(run(study(**INSIDE), KEY))
    needed, interruptions.made = interruptions.made, 0
    for runs in range(1, needed):
        interruptions.allowed = 7
        try:
            records = list(run(study(**INSIDE), KEY, store=tmp_path))
            break
        except KeyboardInterrupt:
            assert interruptions.made == 7 * runs
    assert runs > 5
    assert table(records) == whole
    # An interruption loses less than an epoch: of two networks, the step of the first.
    assert interruptions.made - needed < runs
    assert unfinished(tmp_path) == []


def test_a_training_is_not_slowed_where_it_is_short(tmp_path, monkeypatch):
    monkeypatch.setattr(stage_cache, "CHECKPOINT_SECONDS", 30.0)
    assert interrupted(tmp_path) == []


def test_what_a_finished_stage_left_is_swept(tmp_path):
    """As of a process that was killed between the stage and the removal of its checkpoint."""
    asked = study(methods={}, seeds=1, forget={"few": RandomForget(count=5)})
    list(run(asked, KEY, store=tmp_path))
    (stage,) = tmp_path.glob("stages/original/*/*")
    left = tmp_path / "unfinished" / stage.relative_to(tmp_path / "stages")
    shutil.copytree(stage, left)
    other = left.with_name("another")
    shutil.copytree(stage, other)
    list(run(asked, KEY, store=tmp_path))
    assert not left.exists()
    assert other.exists()


def test_nothing_is_kept_without_a_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(run(study(methods={}, seeds=1), tiny_study.KEY))
    assert list(tmp_path.iterdir()) == []
