"""Reads margins of many networks from a folder in the layout of the EasyDUB dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from unlearnkit.auditing.intervals import mean_and_error
from unlearnkit.auditing.klom import klom
from unlearnkit.base import Audited

SPLITS = ("forget", "retain", "val")
_UNREADABLE = (OSError, EOFError, ValueError)
_Z_95 = 1.959964


class MarginFolder(NamedTuple):
    """Margins of two ensembles on the same examples, by split: `forget`, `retain`, `val`.

    Attributes:
      networks: [a, n] of the networks that are judged.
      oracles: [b, n] of networks that were retrained without the forget set.
    """

    networks: Mapping[str, Float[np.ndarray, "a n"]]
    oracles: Mapping[str, Float[np.ndarray, "b n"]]


def read_easydub_folder(
    folder: Path | str, *, forget_set: int = 1, networks: str = "pretrain"
) -> MarginFolder:
    """Returns the margins of networks and of retrained ones from a folder of margins.

        margins/DATA/oracle/forget_K/SPLIT/NETWORK/*.npy
        margins/DATA/pretrain/SPLIT/NETWORK/*.npy, margins/DATA/pretrain/forget_K/NETWORK/*.npy

    with the splits `forget`, `retain` and `val`, and a file [n] for each network, or [n, q] of q
    queries, which are averaged. Unlearned networks stand beside these two, as either does. Splits
    that one of the two lacks are left out.

    Args:
      folder: with `margins`.
      forget_set: K.
      networks: the folder of those that are judged.

    Raises:
      FileNotFoundError: no margins of the two on the forget set.
      ValueError: several datasets or networks in one folder; files that are no margins, or that do
        not fit each other.

    Source: Rinberg et al. 2025, Easy Data Unlearning Bench, its public code and dataset.
    """
    (root,) = _only(sorted(Path(folder).glob("margins/*/")), f"margins/DATA in {folder}")
    found: dict[str, dict[str, np.ndarray]] = {"ours": {}, "oracles": {}}
    for side, name in (("ours", networks), ("oracles", "oracle")):
        for split in SPLITS:
            own = root / name / f"forget_{forget_set}"
            shared = own if split == "forget" else root / name / split
            places = [place for place in (own / split, shared) if _networks(place)]
            if places:
                found[side][split] = _read_split(places[0])
            elif split == "forget":
                raise FileNotFoundError(f"there are no margins *.npy below {own}")
    for split, ours in found["ours"].items():
        theirs = found["oracles"].get(split)
        if theirs is not None and ours.shape[1] != theirs.shape[1]:
            raise ValueError(
                f"margins of {split} are of {ours.shape[1]} examples under {networks} and of "
                f"{theirs.shape[1]} under the retrained networks"
            )
    kept = [split for split in SPLITS if split in found["ours"] and split in found["oracles"]]
    return MarginFolder(*({split: found[side][split] for split in kept} for side in found))


def audit_margins(margins: MarginFolder) -> Audited:
    """Returns how far networks are from retrained ones, beside what retrained ones show themselves.

    KLoM of finite ensembles is above 0 always. Half of the oracles are compared with the other
    half, and as many of the networks with the same half, example by example.

    Metrics:
      klom_{split}, floor_{split}: means over the examples
      excess_{split}, `_low`, `_high`: their mean difference, with its 95 % interval over the
        examples

    Args:
      margins: of both, at least four oracles.

    Raises:
      ValueError: too few networks.
    """
    metrics: dict[str, float] = {}
    for split, ours in margins.networks.items():
        theirs = margins.oracles[split]
        count = min(len(ours), len(theirs) // 2)
        if count < 2:
            raise ValueError(
                f"2 networks and 4 retrained ones are needed at least, got {len(ours)} and "
                f"{len(theirs)}"
            )
        half = theirs[:count]
        far, floor = (
            klom(networks, half).curves["klom"]
            for networks in (ours[:count], theirs[count : 2 * count])
        )
        if far.size < 2:
            raise ValueError(f"an interval needs 2 examples of {split} at least, got {far.size}")
        mean, error = mean_and_error(far - floor)
        metrics |= {
            f"klom_{split}": float(far.mean()),
            f"floor_{split}": float(floor.mean()),
            f"excess_{split}": mean,
            f"excess_{split}_low": mean - _Z_95 * error,
            f"excess_{split}_high": mean + _Z_95 * error,
        }
    return Audited({**metrics, "networks": float(count)})


def _networks(place: Path) -> list[Path]:
    return sorted(path for path in place.glob("*/") if any(path.glob("*.npy")))


def _only(found: list[Path], what: str) -> list[Path]:
    if len(found) != 1:
        named = ", ".join(path.name for path in found[:5])
        kind = FileNotFoundError if not found else ValueError
        raise kind(f"there must be one folder {what}, got {named or 'none'}")
    return found


def _read_split(place: Path) -> np.ndarray:
    (network,) = _only(_networks(place), f"of networks in {place}")
    rows = []
    for file in sorted(network.glob("*.npy")):
        try:
            values = np.load(file, allow_pickle=False)
        except _UNREADABLE as error:
            raise ValueError(f"cannot read {file} as an array ({error})") from error
        if values.dtype.kind != "f" or values.ndim not in (1, 2):
            raise ValueError(
                f"{file} must hold margins [n] or [n, queries], got {values.dtype} "
                f"{list(values.shape)}"
            )
        rows.append(values if values.ndim == 1 else values.mean(axis=1))
        if rows[-1].shape != rows[0].shape:
            raise ValueError(f"{file} is of {len(rows[-1])} examples, others of {len(rows[0])}")
    return np.stack(rows)
