"""Packs a dataset that is prepared here for a machine without TFDS.

    python -m benchmarks.accelerator.pack mnist mnist.npz --data-dir DIR

Writes a compressed `.npz` of uint8 images and labels in Keras's layout; MNIST takes 11 MB.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np


def main(argv: list[str] | None = None) -> int:
    """Writes the file; returns the exit code."""
    from unlearnkit.data import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=["mnist", "cifar10"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--data-dir", type=Path, help="where TFDS keeps prepared datasets")
    arguments = parser.parse_args(argv)
    arrays = {}
    for split in ("train", "test"):
        dataset = load(arguments.dataset, split=split, data_dir=arguments.data_dir)
        arrays[f"x_{split}"] = np.rint(255 * np.asarray(dataset.x)).astype(np.uint8)
        arrays[f"y_{split}"] = np.asarray(dataset.y)
    np.savez_compressed(arguments.file, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
