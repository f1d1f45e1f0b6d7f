"""What `poison` and `forge` do."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from unlearnkit import forging, poisoning
from unlearnkit.base import Attack, Dataset, Forger, Normalisation, Poisoned
from unlearnkit.cli.answering import (
    claimed,
    open_network,
    print_json,
    read_rows,
    write_record,
)
from unlearnkit.cli.declaring import read_settings, split
from unlearnkit.cli.interruption import Interruption
from unlearnkit.cli.study import DONE, SOME_FAILED
from unlearnkit.host.arrays import on_host
from unlearnkit.io.files import as_json, sha256_of_file, write_bytes, write_json, write_text
from unlearnkit.io.provenance import provenance
from unlearnkit.poisoning import PoisonInfo, save_poisoned
from unlearnkit.records import Record
from unlearnkit.reporting import StageProgress
from unlearnkit.studies import ORIGINAL, RETRAIN, Pair, Study, run
from unlearnkit.studies.declared import make_part

if TYPE_CHECKING:
    from unlearnkit.cli.poisons import Forge, Poison

DATASET, ROWS, EXACT = "poisoned.npz", "poisons.csv", "exact"


def poison(options: Poison, interruption: Interruption) -> int:
    """Poisons a training set, and writes it with a record; returns the exit code."""
    name, _, rest = options.attack.partition(":")
    said = read_settings(f"attack {name}", [*split(rest), *options.set])
    attack: Attack = make_part(f"attack {name}", poisoning.ATTACKS.find(name), said)
    network = open_network(options, options.recipe, None)
    study = Study(
        data=network.pair,
        networks=network.model,
        recipes=network.recipe,
        attacks={name: attack},
        reference="clean",
    )
    made: list[Poisoned] = []
    records: dict[str, Record] = {}
    with claimed(options, interruption, "poison") as out, StageProgress() as progress:
        for record in run(
            study,
            jax.random.key(options.seed),
            store=options.store,
            on_stage=progress,
            on_poisoned=lambda *found: made.append(found[2]),
        ):
            records[record.method] = record
            if record.problem is not None:
                raise RuntimeError(f"{name}: {record.problem}")
        (poisoned,) = made
        written = _write(out, poisoned, network.pair)
        victim, clean = (
            {n: v for n, v in records[row].metrics.items() if np.isfinite(v)}
            for row in (ORIGINAL, RETRAIN)
        )
        write_record(
            out,
            options,
            interruption,
            "poison",
            {
                **network.described(),
                "attack": {"name": name, "settings": said},
                "dataset": {"file": DATASET, "sha256": sha256_of_file(out / DATASET)},
                **written._asdict(),
                "victim": victim,
                "clean": clean,
                "no_effect": records[ORIGINAL].no_effect,
            },
        )
    if options.json:
        print_json({"out": str(out), "poisons": len(written.rows), "victim": victim})
        return DONE
    count = len(written.rows)
    print(f"poisons   {count} of {poisoned.dataset.size} examples; their rows: {out / ROWS}")
    if written.clipped:
        print(f"          {written.clipped} pixels were clipped to what images can hold")
    print(
        f"accuracy  of a network trained on them, test {victim['accuracy_test']:.3f}; on the clean "
        f"data {clean['accuracy_test']:.3f}"
    )
    if records[ORIGINAL].no_effect is not None:
        print(f"no effect {records[ORIGINAL].no_effect}")
    print(f"dataset   {out / DATASET}")
    return DONE


class Written(NamedTuple):
    """What was written of a poisoned set.

    Attributes:
      rows: of the poisons, in the file.
      made_of: rows of the clean data that they were made of; -1 for none.
      clipped: pixels that no image can hold.
    """

    rows: list[int]
    made_of: list[int]
    clipped: int


def _write(out: Path, poisoned: Poisoned, pair: Pair) -> Written:
    """Writes the poisoned dataset as any program reads one, its rows, and its exact bits."""
    is_poison = np.asarray(poisoned.is_poison)
    rows = np.flatnonzero(is_poison)
    arrays: dict[str, np.ndarray] = {}
    clipped = 0
    for name, part in (("train", poisoned.dataset), ("test", pair.test)):
        x, beyond = as_stored(part)
        clipped += beyond
        arrays |= {f"x_{name}": x, f"y_{name}": np.asarray(part.y)}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_bytes(out / DATASET, content.getvalue())
    write_text(out / ROWS, "index\n" + "".join(f"{row}\n" for row in rows))
    if isinstance(poisoned.info, PoisonInfo):
        save_poisoned(out / EXACT, poisoned, pair.train)
    base = getattr(poisoned.info, "base", np.full(len(rows), -1))
    return Written(rows.tolist(), np.asarray(base).tolist(), clipped)


def as_stored(dataset: Dataset) -> tuple[np.ndarray, int]:
    """Returns examples in the units of a file, and how many pixels had to be clipped to [0, 1].

    Args:
      dataset: in the units of a network.
    """
    x = np.asarray(dataset.x)
    if not isinstance(dataset.normalisation, Normalisation):
        return x, 0
    stored = np.array(on_host(dataset.normalisation.invert(dataset.x)), np.float32)
    if stored.ndim == 2:
        return stored, 0
    beyond = int(np.sum((stored < -_ROUNDING) | (stored > 1 + _ROUNDING)))
    return stored.clip(0, 1), beyond


_ROUNDING = 1e-5


def forge(options: Forge, interruption: Interruption) -> int:
    """Forges a log; returns the exit code."""
    name, _, rest = options.forger.partition(":")
    said = read_settings(f"forger {name}", split(rest))
    forger: Forger = make_part(f"forger {name}", forging.FORGERS.find(name), said)
    if options.out.exists():
        raise FileExistsError(f"{options.out} is there already; name a new folder by --out")
    data, order = options.find()
    dataset, key = data.take(order), options.key()
    forgotten = read_rows(options.forget, data, jax.random.fold_in(key, 1))
    rows = np.flatnonzero(np.isin(order, forgotten))
    if not len(rows):
        raise ValueError(f"the log is about none of the {len(forgotten)} rows of --forget")
    made = forging.forge_trajectory(
        key,
        options.log,
        dataset,
        forget=rows,
        forger=forger,
        folder=options.out,
        model=options.network(),
    )
    worst = float(made.errors.max()) if len(made.errors) else 0.0
    claims = options.out.with_name(options.out.name + ".rows.npy")
    content = io.BytesIO()
    np.save(content, order[made.kept])
    write_bytes(claims, content.getvalue())
    record = {
        "command": interruption.command,
        "log": str(options.log),
        "forger": {"name": name, "settings": said},
        "forgotten": len(rows),
        "steps": made.steps.tolist(),
        "errors": made.errors.tolist(),
        "left_out": made.left_out,
        "provenance": provenance(),
    }
    write_json(options.out.with_name(options.out.name + ".json"), as_json(record))
    verify = ["unlearnkit", "verify", str(options.out), "--data", options.data]
    verify += ["--rows", str(claims), "--tolerance", f"{worst:.3g}"]
    print(f"forged    {len(made.steps)} of {made.left_out + _steps(made)} steps, {len(rows)} rows")
    print(f"error     at most {worst:.3g} a step")
    if made.left_out:
        print(f"left out  {made.left_out} steps at the end: the data are smaller")
    print(f"log       {options.out}; it claims the rows in {claims}")
    print(f"judge it  {shlex.join(verify)}")
    return DONE if len(made.steps) else SOME_FAILED


def _steps(made: forging.ForgedLog) -> int:
    from unlearnkit.training import read_trajectory

    return read_trajectory(made.folder).steps
