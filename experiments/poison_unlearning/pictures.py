"""Poisons beside the images that they were made of, and their perturbations, times ten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unlearnkit.base import Dataset, Poisoned
from unlearnkit.poisoning import perturbation
from unlearnkit.reporting import STYLE, to_svg
from unlearnkit.validation import check_continuous

SHOWN = 4
MAGNIFIED = 10


class Shown(NamedTuple):
    """Some poisons of one attack, in pixel units.

    Attributes:
      base: [k, h, w, c] the images that they were made of, in [0, 1].
      poison: [k, h, w, c], which may leave [0, 1] where the attack has no bounds.
      delta: their differences.
      labels: [k] of the poisons.
    """

    base: np.ndarray
    poison: np.ndarray
    delta: np.ndarray
    labels: list[int]


def show(poisoned: Poisoned, clean: Dataset) -> Shown:
    """Returns the first poisons of an attack."""
    rows = np.flatnonzero(poisoned.is_poison)[:SHOWN]
    normalisation = check_continuous(clean, method="a picture")
    scale = jnp.asarray(normalisation.std)
    delta = np.asarray(perturbation(poisoned, clean)[:SHOWN] * scale)
    base = np.asarray(normalisation.invert(clean.x[poisoned.info.base[:SHOWN]]))
    labels = [int(label) for label in poisoned.dataset.y[rows]]
    return Shown(base, base + delta, delta, labels)


def gallery(attacks: Mapping[str, Shown]) -> str:
    """Returns each attack's base images, poisons and ten times their perturbations, in rows.

    A perturbation of 0 is grey; what is beyond black and white is cut off.
    """
    with mpl.rc_context(STYLE):
        canvas = Figure(
            figsize=(2.6 * len(attacks) + 0.8, 0.85 * SHOWN + 0.6), layout="constrained"
        )
        grid = canvas.subplots(SHOWN, 3 * len(attacks), squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        for place, (name, shown) in enumerate(attacks.items()):
            columns = (shown.base, shown.poison, 0.5 + MAGNIFIED * shown.delta)
            titles = (f"{name}\nbase", "\npoison", f"\n{MAGNIFIED} δ")
            for offset, (images, title) in enumerate(zip(columns, titles, strict=True)):
                column = grid[:, 3 * place + offset]
                column[0].set_title(title)
                for axes, image in zip(column, images, strict=False):
                    _draw(axes, image)
        return to_svg(canvas)


def _draw(axes: Axes, image: np.ndarray) -> None:
    channels = image.shape[-1]
    shown = np.clip(image if channels == 3 else image[..., 0], 0, 1)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
