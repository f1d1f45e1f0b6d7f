"""Tables 1 and 3, Figures 2 to 4: a logged run, its reproduction, its forgery."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Key

from experiments.forging.settings import Attack, Setting
from experiments.frame import Data, rounded
from unlearnkit import forging
from unlearnkit.base import Dataset, Forged, SoftDataset
from unlearnkit.forging import LoggedStep, VerificationReport, detectors
from unlearnkit.studies import OnStage
from unlearnkit.training import fit, read_trajectory
from unlearnkit.validation import check_continuous

Pictures: TypeAlias = dict[str, np.ndarray]
highest_precision = partial(jax.default_matmul_precision, "highest")
"""Sets the precision that the log of a run names."""
DRAWN_POINTS = 200
"""Of an error curve, at most."""
SHOWN = 100
"""Examples of a batch that are shown to the detectors."""
DRAWN = 36
"""Examples of a batch that are drawn."""


def write_log(key: Key[Array, ""], setting: Setting, data: Data, folder: Path) -> None:
    """Writes the setting's log, a checkpoint each step; one that is there is kept."""
    with highest_precision():
        fit(key, data.model, data.train, setting.recipe, trajectory=folder, every=1)


def reproduce(key: Key[Array, ""], setting: Setting, data: Data, folder: Path) -> dict[str, Any]:
    """Returns the errors of honest replays (Tables 1 and 3, Figure 4), as JSON values."""
    model, train, _ = data
    segments = min(setting.triples, read_trajectory(folder).segments)
    calibrate_key, verify_key = jax.random.split(key)
    with highest_precision():
        calibration = forging.calibrate(
            calibrate_key, folder, train, model=model, segments=segments, shuffles=setting.shuffles
        )
        steps, tolerance = f"random:{segments}", calibration.tolerance
        report = forging.verify(
            folder, train, tolerance=tolerance, model=model, steps=steps, key=verify_key
        )
    largest = max(band.largest.weights for band in calibration.bands if band.benign)
    measured = {**calibration.as_json(), "largest": largest, "n_parameters": report.n_parameters}
    return {**rounded(measured), "verified": verdict(report)}


def verdict(report: VerificationReport) -> dict[str, Any]:
    """Returns what a verification found, as JSON values."""
    told, errors = report.as_json(), report.distribution()
    kept = {name: told[name] for name in ("valid", "verdict", "tolerance", "differences")}
    counted = {"segments": len(report.steps), "accepted": int(report.accepted.sum())}
    return rounded({**kept, **counted, "largest": errors["largest"], "median": errors["median"]})


def forge_triples(
    key: Key[Array, ""], setting: Setting, data: Data, folder: Path, on_stage: OnStage
) -> tuple[dict[str, Any], Pictures]:
    """Returns what each attack reached, as JSON values, and the batches of the first triple.

    Args:
      key: of the choice of steps and of the attacks.
      setting: says which attacks.
      data: network and examples of the log.
      folder: of the log.
      on_stage: called as the work goes on.
    """
    order_key, attack_key, exact_key = jax.random.split(key, 3)
    log = read_trajectory(folder)

    def read(number: int) -> LoggedStep:
        """Every example of the batch counts as to be forgotten."""
        (found,) = forging.logged_steps(log, data.model, data.train, steps=np.array([number]))
        return found

    shuffled = np.asarray(jax.random.permutation(order_key, log.segments))
    order = [int(step) for step in shuffled[: setting.triples]]
    first = read(order[0])
    pictures = {"real": images_of(first.batch)}
    found: dict[str, Any] = {"steps": order, "honest": _honest(first)}
    attacks: dict[str, Any] = {}
    for number, (name, attack) in enumerate(setting.attacks.items()):
        forged: list[Forged] = []
        for index, chosen in enumerate(order[: attack.triples]):
            on_stage(f"{name}, triple {index + 1} of {min(attack.triples, len(order))}", 0, 1)
            triple = read(chosen)
            own_key = jax.random.fold_in(jax.random.fold_in(attack_key, number), index)
            forged.append(attack.forger(own_key, data.model, triple.step, triple.allowed))
        pictures[name] = images_of(forged[0].batch)
        attacks[name] = describe_attack(attack, forged, first)
    found["attacks"] = attacks
    if setting.exact is not None:
        on_stage("greedy search in integer arithmetic", 0, 1)
        sizes = dict(zip(("points", "candidates"), setting.exact, strict=True))
        searched = forging.search_exact(
            exact_key, data.model, first.step.variables, first.batch, first.allowed, **sizes
        )
        found["exact"] = {name: int(value) for name, value in searched._asdict().items()}
    return found, pictures


def describe_attack(attack: Attack, forged: list[Forged], first: LoggedStep) -> dict[str, Any]:
    """Returns errors, course, cost and traces of one attack; the traces of the first batch."""
    info = forged[0].info
    domain = detectors.domain_violations(forged[0].batch)
    described: dict[str, Any] = {
        "forger": repr(attack.forger),
        "errors": [float(one.error) for one in forged],
        "example_gradients": info.cost.example_gradients,
        "seconds": float(np.median([one.info.cost.seconds for one in forged])),
        "out_of_domain": float(np.mean(domain.flagged)),
        "traces": _traces(forged[0].batch, first.batch),
    }
    if hasattr(info, "errors") and hasattr(attack.forger, "learning_rate"):
        described["curves"] = [_thinned(np.asarray(one.info.errors)) for one in forged]
    kept = (name for name in ("started", "changed", "bound") if hasattr(info, name))
    return rounded(described | {name: float(getattr(info, name)) for name in kept})


def _honest(first: LoggedStep) -> dict[str, Any]:
    """Returns the traces of an honest batch of other examples, to compare those of forged ones."""
    others = first.allowed.take(np.arange(first.batch.size))
    flagged = float(np.mean(detectors.domain_violations(first.batch).flagged))
    return rounded({"out_of_domain": flagged, "traces": _traces(others, first.batch)})


def _traces(batch: Dataset | SoftDataset, accused: Dataset) -> dict[str, float]:
    """Returns what the detectors see of the accused batch in the first examples of another."""
    batch = batch._replace(x=batch.x[:SHOWN], y=batch.y[:SHOWN])
    return {
        "near_duplicates": float(np.mean(detectors.near_duplicates(batch, accused).any(axis=1))),
        "scalar_multiples": float(np.mean(detectors.scalar_multiples(batch, accused).any(axis=1))),
        "left_of_superposition": float(np.median(detectors.superposition(batch, accused))),
    }


def images_of(batch: Dataset | SoftDataset) -> np.ndarray:
    """Returns the first images of a batch in pixels."""
    normalisation = check_continuous(batch, method="a picture")
    return np.asarray(normalisation.invert(batch.x[:DRAWN]))


def _thinned(curve: np.ndarray) -> list[list[float]]:
    """Returns (iteration, error) at points of a curve, its first and its last among them."""
    points = np.unique(np.linspace(0, len(curve) - 1, min(DRAWN_POINTS, len(curve))).astype(int))
    return [[int(i), float(curve[i])] for i in points]
