"""How an array of a file is laid out, and how the network wants it."""

from __future__ import annotations

import dataclasses

import numpy as np

from unlearnkit.io.tensor_files import WeightsError

_CHANNELS_FIRST = ("weight",)
"""Leaves that PyTorch and Equinox have: [out, in, …]."""
_CHANNELS_LAST = ("kernel", "w")
"""Leaves that flax and haiku have: […, in, out]."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A change of layout that loses nothing.

    Attributes:
      axes: the axes of the file's array in the order of the network's; None where they agree.
      flattened: (height, width, channels) of the feature map that a linear layer takes as a row;
        its inputs are then brought from the order channel, height, width to height, width, channel.
      squeezed: the file's shape, where it has axes of length 1 that the network's has not.
    """

    axes: tuple[int, ...] | None = None
    flattened: tuple[int, int, int] | None = None
    squeezed: tuple[int, ...] | None = None

    def to_network(self, array: np.ndarray) -> np.ndarray:
        """Returns the file's array as the network wants it."""
        if self.squeezed is not None:
            return array.reshape([side for side in array.shape if side != 1])
        if self.axes is not None:
            array = array.transpose(self.axes)
        if self.flattened is not None:
            height, width, channels = self.flattened
            maps = array.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
            array = maps.reshape(array.shape)
        return array

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """Returns the network's array as the file has it."""
        if self.squeezed is not None:
            return array.reshape(self.squeezed)
        if self.flattened is not None:
            maps = array.reshape(*self.flattened, -1).transpose(2, 0, 1, 3)
            array = maps.reshape(array.shape)
        if self.axes is not None:
            array = array.transpose(np.argsort(self.axes))
        return array

    @property
    def told(self) -> str:
        """What is done, in words; empty where nothing is."""
        said = []
        if self.axes is not None:
            said.append("transposed" if len(self.axes) == 2 else "OI… to …IO")
        if self.flattened is not None:
            said.append("inputs from CHW to HWC")
        if self.squeezed is not None:
            said.append("axes of length 1 removed")
        return ", ".join(said)


def layout_of(
    leaf: str, shape: tuple[int, ...], wanted_leaf: str, wanted: tuple[int, ...]
) -> Layout:
    """Returns the layout by rule: what the leaves are called, and how many axes they have.

    `weight` [out, in, …] of PyTorch and Equinox becomes `kernel` or `w` […, in, out] of flax and
    haiku, and the other way round. Nothing is ever guessed from lengths alone: a square matrix is
    transposed as any other.

    Args:
      leaf: the last part of the name in the file.
      shape: in the file.
      wanted_leaf: the last part of the name in the network.
      wanted: the network's shape.

    Raises:
      WeightsError: the shape does not fit.
    """
    axes: tuple[int, ...] | None = None
    if len(shape) > 1 and len(shape) == len(wanted):
        last = tuple(range(len(shape)))
        if leaf in _CHANNELS_FIRST and wanted_leaf in _CHANNELS_LAST:
            axes = (*last[2:], 1, 0)
        elif leaf in _CHANNELS_LAST and wanted_leaf in _CHANNELS_FIRST:
            axes = (last[-1], last[-2], *last[:-2])
    brought = shape if axes is None else tuple(shape[axis] for axis in axes)
    if brought == wanted:
        return Layout(axes)
    if len(wanted) == 1 < len(shape) and tuple(n for n in shape if n != 1) == wanted:
        return Layout(squeezed=shape)
    moved = "" if axes is None else f", {list(brought)} in the network's layout"
    raise WeightsError(f"the file has {list(shape)}{moved}; the network has {list(wanted)}")
