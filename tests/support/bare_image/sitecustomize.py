"""Hides the packages that a usual CUDA image lacks, in every process: they are not found.

flax itself needs rich, so that it is hidden from this project's modules alone.
"""

import importlib.machinery
import sys
from pathlib import Path

MISSING = (
    "altair",
    "array_record",
    "beartype",
    "cvxpylayers",
    "dask",
    "itables",
    "jaxopt",
    "tensorflow",
    "tensorflow_datasets",
    "tyro",
    "vl_convert",
)
ROOT = str(Path(__file__).resolve().parents[3])


class BareImage(importlib.machinery.PathFinder):
    """Finds what the usual finder does, but for what is missing."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        package = fullname.partition(".")[0]
        if package in MISSING or (package == "rich" and asked_by_the_project()):
            return None
        return super().find_spec(fullname, path, target)


def asked_by_the_project():
    frame = sys._getframe(2)
    while frame is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    file = "" if frame is None else frame.f_code.co_filename
    return file.startswith(ROOT) and "site-packages" not in file


usual = importlib.machinery.PathFinder
sys.meta_path[sys.meta_path.index(usual)] = BareImage
