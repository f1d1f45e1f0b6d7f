import jax
import numpy as np
import pytest

from unlearnkit.forging import (
    GreedyForger,
    OptimiseForger,
    SubstitutionForger,
    SwapForger,
    detectors,
    forge_trajectory,
    forged_log,
    match_rows,
    verify,
)
from unlearnkit.training import Recipe, TrajectoryError, fit, read_trajectory

KEY = jax.random.key(4)
FORGET = np.array([3, 17])
FORGER = GreedyForger(38, 60)


@pytest.fixture(scope="module")
def step_log(tmp_path_factory, mlp, points):
    """15 steps, each with a checkpoint, no momentum."""
    folder = tmp_path_factory.mktemp("steps")
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=0.1, momentum=0, weight_decay=1e-3)
    fit(jax.random.key(1), mlp, points, recipe, trajectory=folder, every=1)
    return folder


def forge(log, points, folder, **options):
    arguments = {"forget": FORGET, "forger": FORGER, "folder": folder, **options}
    return forge_trajectory(KEY, log, points, **arguments)


def test_the_verifier_measures_the_error_of_each_forged_step(step_log, points, tmp_path):
    forged = forge(step_log, points, tmp_path / "forged")
    true, log = read_trajectory(step_log), read_trajectory(forged.folder)
    left = points.take(forged.kept)
    assert log.claim.steps == 12 == 15 - forged.left_out  # 38 examples make 4 batches an epoch
    touched = np.isin(true.batches, FORGET).any(axis=1)[:12]
    assert forged.steps.tolist() == np.flatnonzero(touched).tolist()
    assert 3 <= len(forged.steps) < 12
    claimed = forged.kept[log.batches]  # as rows of all data
    assert not np.isin(claimed, FORGET).any()
    assert np.array_equal(claimed[~touched], true.batches[:12][~touched])
    assert log.head != true.head
    report = verify(forged.folder, left, tolerance=1.0)
    assert report.verdict == "INVALID"
    np.testing.assert_allclose(report.errors[touched], forged.errors, rtol=1e-3)
    assert np.all(report.errors[touched] > 1e-4)
    assert report.errors[~touched].tolist() == [0] * int(np.sum(~touched))
    assert not report.accepted[touched].any()


def test_a_forged_log_claims_the_data_without_the_forgotten(step_log, points, tmp_path):
    forged = forge(step_log, points, tmp_path / "forged")
    assert forged.kept.tolist() == np.setdiff1d(np.arange(40), FORGET).tolist()
    assert match_rows(read_trajectory(forged.folder), points).tolist() == forged.kept.tolist()
    with pytest.raises(TrajectoryError, match="about other data"):
        verify(forged.folder, points)


def test_replays_that_are_exact_leave_the_order_to_tell(step_log, mlp, points, tmp_path):
    """The forgotten example has a double, which stands in for it without an error."""
    doubled = points._replace(
        x=points.x.at[17].set(points.x[3]), y=points.y.at[17].set(points.y[3])
    )
    recipe = read_trajectory(step_log).claim.recipe
    fit(jax.random.key(1), mlp, doubled, recipe, trajectory=tmp_path / "log", every=1)
    forged = forge(
        tmp_path / "log", doubled, tmp_path / "forged", forget=np.array([3]),
        forger=SubstitutionForger(40),
    )  # fmt: skip
    assert forged.errors.tolist() == [0, 0]
    report = verify(forged.folder, doubled.take(forged.kept))
    assert report.accepted.all()
    assert report.verdict == "INVALID"
    (reason,) = report.contradictions
    assert reason.startswith("the batches of 12 of 12 steps are not those that the log's key draws")


def test_a_stronger_forger_leaves_a_smaller_error(step_log, points, tmp_path):
    greedy = forge(step_log, points, tmp_path / "greedy")
    swapped = forge(step_log, points, tmp_path / "swap", forger=SwapForger(38, 60, restarts=2))
    assert swapped.errors.max() < greedy.errors.max() / 2


def test_steps_between_checkpoints_are_forged_too(point_log, points, tmp_path):
    forged = forge(point_log, points, tmp_path / "forged")
    assert forged.left_out == 2
    assert len(forged.steps) >= 2
    report = verify(forged.folder, points.take(forged.kept), tolerance=1.0)
    ends = report.steps.tolist()
    assert ends == [4, 8]
    rejected = {ends[i] for i in np.flatnonzero(report.errors > 1e-6)}
    assert rejected == {min(end for end in ends if end > step) for step in forged.steps}


def test_a_forged_log_may_end_between_two_checkpoints(step_log, mlp, points, tmp_path):
    recipe = read_trajectory(step_log).claim.recipe
    fit(jax.random.key(1), mlp, points, recipe, trajectory=tmp_path / "sparse", every=5)
    forged = forge(tmp_path / "sparse", points, tmp_path / "forged")
    assert (tmp_path / "forged" / "state-0000000012.safetensors").exists()
    report = verify(forged.folder, points.take(forged.kept), tolerance=1.0)
    assert report.complete
    assert report.steps.tolist() == [5, 10, 12]
    true = read_trajectory(step_log).read(12, mlp).state.variables
    last = read_trajectory(forged.folder).read(3, mlp).state.variables
    for one, other in zip(jax.tree.leaves(true), jax.tree.leaves(last), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_states_between_checkpoints_are_those_of_the_run(step_log, mlp, points, tmp_path):
    sparse = tmp_path / "sparse"
    recipe = read_trajectory(step_log).claim.recipe
    fit(jax.random.key(1), mlp, points, recipe, trajectory=sparse, every=15)
    dense, other = (
        forge(log, points, tmp_path / name) for name, log in (("a", step_log), ("b", sparse))
    )
    assert dense.steps.tolist() == other.steps.tolist()
    np.testing.assert_allclose(other.errors, dense.errors, rtol=1e-4)


def test_its_order_and_its_use_of_examples_give_a_forged_log_away(step_log, points, tmp_path):
    true = read_trajectory(step_log)
    usage = detectors.frequency_of_use(true)
    assert detectors.redrawn_steps(true).size == 0
    assert usage.repeated.tolist() == [0, 0, 0]
    assert usage.counts.tolist() == [3] * 40
    forged = forge(step_log, points, tmp_path / "forged")
    log = read_trajectory(forged.folder)
    assert detectors.redrawn_steps(log).tolist() == list(range(12))
    usage = detectors.frequency_of_use(log)
    assert np.all(usage.repeated > 0)
    assert usage.counts.sum() == 12 * 8


def test_forgotten_rows_may_be_a_mask(step_log, points):
    log, mask = read_trajectory(step_log), np.isin(np.arange(40), FORGET)
    rows = forged_log.check_forgotten(log, points, mask)
    assert rows.tolist() == sorted(FORGET.tolist())


def test_what_cannot_be_forged_is_refused(
    step_log, picture_log, dropping, pictures, points, tmp_path
):
    for options, message in (
        ({"forget": np.array([40])}, "rows of the data, 0 … 39, got 40"),
        ({"forget": np.ones(39, bool)}, "must be 40, one for each example"),
        ({"forget": np.array([], int)}, "rows 0 … 39"),
        ({"forget": np.arange(33)}, "7 examples would be left, too few for a batch of 8"),
        ({"folder": step_log}, "is there already"),
        ({"forger": OptimiseForger(2)}, "OptimiseForger makes examples of its own"),
    ):
        with pytest.raises(ValueError, match=message):
            forge(step_log, points, **{"folder": tmp_path / "new", **options})
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="augmentation='none', the log's run has 'shift_flip'"):
        forge(picture_log, pictures, tmp_path / "new", model=dropping)


def test_rates_that_another_number_of_steps_would_change_are_refused(points, mlp, tmp_path):
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=0.1, momentum=0, schedule="cosine")
    fit(jax.random.key(1), mlp, points, recipe, trajectory=tmp_path / "log", every=5)
    with pytest.raises(ValueError, match="an epoch has 4 steps in the place of 5.*'cosine'"):
        forge(tmp_path / "log", points, tmp_path / "new")
    assert not (tmp_path / "new").exists()
