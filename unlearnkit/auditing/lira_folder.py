"""Reads shadow networks' logits from a folder that LiRA's public code wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from unlearnkit.auditing.shadows import Shadows
from unlearnkit.base import Cost


def query_margins(
    logits: Float[np.ndarray, "n 1 q c"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n q"]:
    """Returns log p_y - log (1 - p_y) of every example under every query.

    Args:
      logits: [n, 1, q, c] of n examples under q queries (augmentations), the layout of the public
        code; along a second axis that is longer, probabilities are averaged, as there.
      labels: [n].

    Raises:
      ValueError: another layout, or labels that do not fit it.

    Source: Carlini et al. 2022, the public code (tensorflow/privacy, research/mi_lira_2021), which
    adds 1e-45 to both probabilities and so cuts margins at ±103.6. These are not cut.
    """
    if logits.ndim != 4:
        raise ValueError(
            f"logits must be [n, 1, queries, classes], got {list(logits.shape)}; "
            "a single query of n examples is logits[:, None, None]"
        )
    n, _, _, classes = logits.shape
    if labels.shape != (n,) or (n and not 0 <= labels.min() <= labels.max() < classes):
        raise ValueError(
            f"labels must be [{n}] class indices below {classes}, got {list(labels.shape)}"
            + (f" in {labels.min()} … {labels.max()}" if labels.size else "")
        )
    z = np.asarray(logits, np.float64)
    z = z - logsumexp(z, axis=-1, keepdims=True)
    is_label = np.arange(classes) == labels[:, None, None, None]
    right, wrong = (
        logsumexp(np.where(chosen, z, -np.inf), axis=(1, 3)) for chosen in (is_label, ~is_label)
    )
    found: np.ndarray = right - wrong
    return found


def read_lira_folder(folder: Path | str) -> Shadows:
    """Returns the networks of a folder that the public code of LiRA, or another program, wrote.

    `y_train.npy` holds the labels [N]; each `experiment*` folder is a network: `keep.npy`, whether
    it was trained on each example, bool [N], and `logits/*.npy`, [n, 1, q, c] of the first n <= N
    examples, of which the last file by name is read. Networks come in the order of their names. One
    of them is attacked by the others as

        networks = read_lira_folder(folder)
        rest = networks._replace(margins=networks.margins[:-1], is_in=networks.is_in[:-1])
        scores = lira_scores(networks.margins[-1], rest, mode="offline_two_sided", fit="reference")

    Args:
      folder: `logdir` there.

    Returns:
      margins [s, n, q] and is_in [s, n]; the cost is not known and 0.

    Raises:
      FileNotFoundError: no labels, no network, or a network without its two files.
      ValueError: arrays that do not fit each other, or that hold something else than numbers.
    """
    folder = Path(folder)
    labels = _load(folder / "y_train.npy")
    networks = sorted(path for path in folder.glob("experiment*") if path.is_dir())
    if not networks:
        raise FileNotFoundError(f"no experiment* folder in {folder}")
    margins, is_in = [], []
    for network in networks:
        files = sorted((network / "logits").glob("*.npy"))
        if not files:
            raise FileNotFoundError(f"no logits/*.npy in {network}")
        logits, keep = _load(files[-1]), _load(network / "keep.npy")
        n = len(logits)
        if keep.dtype != bool or keep.shape != labels.shape or n > len(labels):
            raise ValueError(
                f"keep.npy of {network.name} must be bool {list(labels.shape)} and its logits of "
                f"at most {len(labels)} examples, got {keep.dtype} {list(keep.shape)} and {n}"
            )
        margins.append(query_margins(logits, labels[:n]))
        is_in.append(keep[:n])
        if margins[-1].shape != margins[0].shape:
            raise ValueError(
                f"{network.name} has margins {list(margins[-1].shape)}, "
                f"{networks[0].name} has {list(margins[0].shape)}; all must be alike"
            )
    return Shadows(np.stack(margins), np.stack(is_in), Cost(0.0, 0.0))


def _load(path: Path) -> np.ndarray:
    """Returns an array; nothing in the file is executed."""
    found: np.ndarray = np.load(path, allow_pickle=False)
    return found
