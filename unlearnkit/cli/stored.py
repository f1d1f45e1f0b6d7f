"""What `report` does with a store of stages: the records that it holds of a study."""

from __future__ import annotations

from pathlib import Path

import jax

from unlearnkit.cli.running import AT_ONCE, holds_study, until_unfinished, written_by_one
from unlearnkit.io.provenance import provenance
from unlearnkit.records import Record
from unlearnkit.registry import tell_known
from unlearnkit.reporting import RunFolder
from unlearnkit.studies import Declared, Store, count_records, parse_study, run
from unlearnkit.studies.parts import cells


def records_of_store(folder: Path, *, study: str | None, into: Path | None) -> Path:
    """Writes what a store holds of a study to a folder, as a run would; returns the folder.

    Nothing is computed: a record is there where all its stages are.

    Args:
      folder: the store.
      study: the short name that the store has for the study, or a TOML file; None takes the only
        one.
      into: the folder; None for one beside the store.

    Raises:
      ValueError: the store names no study, or several, or another one; or it holds no record.
    """
    store = Store(folder)
    text = _text_of(store, study)
    declared = parse_study(text, name="the study")
    total = count_records(declared.study)
    records = _records(declared, store)
    if not records:
        raise ValueError(
            f"{folder} holds no result of this study, made by this version of the program, its "
            f"libraries and this device; run it with: unlearnkit run STUDY.toml --store {folder}"
        )
    out = into or folder.absolute().with_name(f"{folder.absolute().name}-report")
    header = {
        "study": text,
        "n_records": len(records),
        "n_records_of_the_study": total,
        "provenance": provenance(),
    }
    with written_by_one(out):
        there = {**header, "store": str(folder.absolute())}
        written = RunFolder(out, there, overwrite=holds_study(out, text))
        for record in records:
            written.add(record)
    if len(records) < total:
        print(f"{len(records)} of the study's {total} records are in the store")
    return out


def _records(declared: Declared, store: Store) -> list[Record]:
    """Returns the records all of whose stages are there, in the order of the study.

    Networks that are trained side by side count as one where all is asked for at once, and one of
    them may be missing: then cells are asked for one after another.
    """
    key = jax.random.key(declared.seed)

    def there(shard: tuple[int, int] | None, found: list[Record]) -> bool:
        with until_unfinished() as unfinished:
            found.extend(
                run(
                    *(declared.study, key),
                    store=store, minutes=AT_ONCE, shard=shard, checked=shard is not None,
                )
            )  # fmt: skip
        return not unfinished

    whole: list[Record] = []
    if there(None, whole):
        return whole
    count = len(cells(declared.study))
    single: list[Record] = []
    for which in range(1, count + 1):
        there((which, count), single)
    return single


def _text_of(store: Store, study: str | None) -> str:
    known = store.studies()
    if study is not None:
        if study in known:
            return known[study]
        if Path(study).is_file():
            return Path(study).read_bytes().decode("utf-8")
        raise ValueError(
            f"--study is no file, and no study of {store.folder}: {tell_known(study, list(known))}"
        )
    if len(known) == 1:
        return next(iter(known.values()))
    if not known:
        raise ValueError(f"{store.folder} names no study that took from it; give --study FILE.toml")
    raise ValueError(
        f"{len(known)} studies took from {store.folder}: say which, by --study "
        f"{' or --study '.join(known)}; `studies` in it has their texts"
    )
