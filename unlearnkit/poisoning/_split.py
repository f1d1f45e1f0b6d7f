"""The attacker's share of the clean training set."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Key

from unlearnkit.host.random import host_key


def check_share(share: float) -> None:
    """Raises ValueError if a share is outside (0, 1)."""
    if not 0 < share < 1:
        raise ValueError(f"held_out must be in (0, 1), a share of the training set, got {share}")


def hold_out(key: Key[Array, ""], n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that the simulated defender trains on, and those that the attacker keeps.

    Both are drawn; the first `m` of the concatenation of the two are m rows drawn at random.

    Args:
      key: a typed key.
      n: the size of the clean training set, at least 2.
      share: of the attacker, in (0, 1).

    Raises:
      ValueError: fewer than two examples.

    Source: Lu et al. 2022, §5.1: 70 % to train on, 30 % to validate.
    """
    if n < 2:
        raise ValueError(f"the training set must hold at least 2 examples to be split, got {n}")
    order = host_key(key).permutation(n)
    kept = min(max(round(share * n), 1), n - 1)
    return order[: n - kept], order[n - kept :]
