"""Makes the packages that a usual CUDA image lacks impossible to import, in every process.

flax itself needs rich, so that it is refused to this project's modules alone.
"""

import sys
from pathlib import Path

MISSING = (
    "altair",
    "array_record",
    "beartype",
    "cvxpylayers",
    "dask",
    "jaxopt",
    "tensorflow",
    "tensorflow_datasets",
    "tyro",
)
ROOT = str(Path(__file__).resolve().parents[3])


class Refuse:
    """Finds nothing, and refuses what is missing."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        package = name.partition(".")[0]
        if package in MISSING or (package == "rich" and asked_by_the_project()):
            raise ModuleNotFoundError(f"No module named {name!r} in a usual image", name=name)


def asked_by_the_project():
    frame = sys._getframe(2)
    while frame is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    file = "" if frame is None else frame.f_code.co_filename
    return file.startswith(ROOT) and "site-packages" not in file


sys.meta_path.insert(0, Refuse)
