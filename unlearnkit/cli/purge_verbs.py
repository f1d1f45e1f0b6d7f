"""What `purge` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from unlearnkit.base import Dataset
from unlearnkit.cli.answering import open_data, print_json, read_rows
from unlearnkit.cli.asking import OnData
from unlearnkit.data.normalising import NORMALISATIONS
from unlearnkit.studies import purge as purge_places
from unlearnkit.studies.purging import Held

if TYPE_CHECKING:
    from unlearnkit.cli.poisons import Purge

_LONGEST = 60


def purge(options: Purge) -> int:
    """Removes what holds the rows, and lists what still does; returns the exit code."""
    for place in options.places:
        if not place.is_dir():
            raise FileNotFoundError(f"there is no folder {place}")
    versions = _versions(options)
    rows = read_rows(options.forget, versions[0], jax.random.key(0))
    found = purge_places(options.places, versions, rows, dry_run=options.dry_run)
    if options.json:
        print_json(
            {
                name: [{"path": str(one.path), "why": one.why} for one in part]
                for name, part in found._asdict().items()
            }
        )
        return int(bool(found.left))
    done = "would be removed" if options.dry_run else "removed"
    print(f"{done}: {len(found.removed)}")
    print("\n".join(_listed(found.removed)))
    print(f"still there: {len(found.left)}" + ("" if found.left else "; nothing holds the rows"))
    print("\n".join(_listed(found.left)))
    if found.left:
        print("copies elsewhere, of this machine or others, are not known to this command")
    return int(bool(found.left))


def _listed(held: Sequence[Held]) -> list[str]:
    """Returns a line for each thing, or for many alike."""
    alike: dict[str, list[Held]] = {}
    for one in held:
        alike.setdefault(one.why, []).append(one)
    return [
        f"  {_shown(found[0].path)}: {why}"
        + (f"; and {len(found) - 1} more (--json lists all)" if len(found) > 1 else "")
        for why, found in alike.items()
    ]


def _shown(path: Path) -> Path:
    """Returns a path without the rest of a stage's long name."""
    return path if len(path.name) <= _LONGEST else path.with_name(f"{path.name[:12]}…")


def _versions(options: Purge) -> list[Dataset]:
    """Returns the training set under every normalisation that it can have."""
    found = []
    for name in NORMALISATIONS:
        asked = OnData(options.data, "", options.places[0], options.data_dir, options.reading, name)
        try:
            found.append(open_data(asked).train)
        except ValueError:  # features of any range have `standard` alone
            if name == NORMALISATIONS[-1] and not found:
                raise
    return found
