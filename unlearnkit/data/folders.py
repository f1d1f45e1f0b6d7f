"""Image folders: `root/train/<class>/*.png` and `root/test/<class>/*.png`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unlearnkit.data.images import decode_image, is_image
from unlearnkit.data.labels import hold_out, in_order
from unlearnkit.data.source import (
    HELD_OUT,
    SPLITS,
    Description,
    Pixels,
    Progress,
    cache_of,
    choose_splits,
    fingerprint_files,
    measure,
    report,
)
from unlearnkit.reading import AS_FOUND, Reading
from unlearnkit.validation import InputWarning


@dataclasses.dataclass(frozen=True)
class Folders:
    """The images under `root`, one folder per class, in which they may lie deeper.

    The names of the classes in order are the labels: numeric order where all are whole numbers,
    else alphabetic. Without a test folder a validation folder stands for it; a root that holds the
    class folders themselves is divided by `reading.test_fraction`. All images have one size and are
    all grey or all RGB, or are made so by `reading`. Hidden files are passed over, and so are files
    that are no images by their endings, which is told.
    """

    root: Path
    reading: Reading = AS_FOUND

    @property
    def cache(self) -> Path:
        """A hidden folder inside the root, where no class or split is looked for."""
        return cache_of(self.root)

    def describe(self) -> Description:
        """Returns shape, classes and sizes; decodes the first image."""
        files = self._files()
        classes = tuple(files["train"])
        return Description(
            str(self.root),
            self._decode(files["train"][classes[0]][0]).shape,
            len(classes),
            classes,
            {split: sum(map(len, by_class.values())) for split, by_class in files.items()},
        )

    def fingerprint(self) -> str:
        """Returns a digest of all files' names, sizes and times, and of how they are read."""
        groups = (group for by_class in self._files().values() for group in by_class.values())
        paths = {path for group in groups for path in group}
        return fingerprint_files(paths, root=self.root, told=self.reading.told)

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split, ordered by class and name."""
        files = self._files()
        labels = {name: label for label, name in enumerate(files["train"])}
        examples = [(path, labels[name]) for name, group in files[split].items() for path in group]
        first = next(iter(files["train"].values()))[0]
        shape = self._decode(first).shape
        x = np.empty((len(examples), *shape), np.uint8)
        for i, (path, _) in enumerate(examples):
            image = self._decode(path)
            if image.shape != shape:
                remedy = "size" if image.shape[:2] != shape[:2] else "mode"
                option = (
                    f"resize={shape[0]} (--resize)" if remedy == "size" else "mode='rgb' (--mode)"
                )
                raise ValueError(
                    f"images must have one size and number of channels, got {image.shape} in "
                    f"{path} and {shape} in {first}; bring them to one {remedy} by {option}"
                )
            x[i] = image
            report(progress, i + 1, len(x))
        return measure(x, np.asarray([label for _, label in examples]), white=255)

    def names(self, split: str) -> list[str]:
        """Returns the path of each example below the split's folder, in their order."""
        groups = self._files()[split].values()
        return ["/".join(_below_split(path, self.root)) for group in groups for path in group]

    def _decode(self, path: Path) -> np.ndarray:
        return decode_image(path, where=str(path), reading=self.reading)

    def _files(self) -> dict[str, dict[str, list[Path]]]:
        """Returns the files by split and class, in order."""
        folders = sorted(p for p in self.root.iterdir() if p.is_dir() and p.name[0] != ".")
        called = {_split_of(folder.name): folder for folder in reversed(folders)}
        parts = {name: path for name, path in called.items() if name in ("train", *HELD_OUT)}
        if not parts and folders and self.reading.test_fraction is not None:
            parts = {"": self.root}
        if not parts and folders:
            raise ValueError(
                f"{self.root} has no folders train and test, and holds "
                f"{', '.join(folder.name for folder in folders[:8])}; where these are its classes, "
                "say how much of each to hold out, as test_fraction=0.2 (--test-fraction)"
            )
        holds = sorted(p.name for p in self.root.iterdir() if p.name[0] != ".")
        chosen = choose_splits(parts, self.reading, where=str(self.root), holds=holds)
        files = self._frequent(
            {split: self._by_class(parts[name]) for split, name in chosen.items()}
        )
        if chosen["train"] == chosen["test"]:
            return _divide(files["train"], self.reading)
        unknown = [name for name in files["test"] if name not in files["train"]]
        if unknown:
            raise ValueError(
                f"{parts[chosen['test']]} must hold classes of {parts['train']}, got "
                f"{', '.join(unknown)}; the training classes are {', '.join(files['train'])}"
            )
        return files

    def _frequent(
        self, files: dict[str, dict[str, list[Path]]]
    ) -> dict[str, dict[str, list[Path]]]:
        """Returns the files without classes of fewer images than `least_per_class`."""
        least = self.reading.least_per_class
        if least is None:
            return files
        images: dict[str, set[Path]] = {}  # an image of a root without splits is in both
        for by_class in files.values():
            for name, group in by_class.items():
                images.setdefault(name, set()).update(group)
        sizes = {name: len(group) for name, group in images.items()}
        kept = {
            split: {name: group for name, group in by_class.items() if sizes[name] >= least}
            for split, by_class in files.items()
        }
        if not kept["train"]:
            raise ValueError(
                f"least_per_class={least} leaves no class of {self.root}; the largest, "
                f"{max(sizes, key=sizes.__getitem__)}, has {max(sizes.values())} images"
            )
        return kept

    def _by_class(self, folder: Path) -> dict[str, list[Path]]:
        """Returns the images of a split by class."""
        groups = {p.name: p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."}
        if not groups:
            raise ValueError(f"{folder} must hold a folder for each class, and holds none")
        by_class, others = {}, list[Path]()
        for name in in_order(list(groups)):
            below = ((p, p.relative_to(groups[name]).parts) for p in groups[name].rglob("*"))
            seen = sorted(p for p, parts in below if not any(part[0] == "." for part in parts))
            there = [path for path in seen if path.is_file()]
            by_class[name] = [path for path in there if is_image(path)]
            others += [path for path in there if not is_image(path)]
            if not by_class[name]:
                raise ValueError(
                    f"the class folder {groups[name]} holds no images; add some or remove it"
                )
        if others:
            _tell(others)
        return by_class


def _split_of(name: str) -> str:
    """Returns which split a folder's name stands for."""
    return {"training": "train", "testing": "test"}.get(name.lower(), name.lower())


def _below_split(path: Path, root: Path) -> tuple[str, ...]:
    """Returns the parts of an image's path that begin with its class."""
    parts = path.relative_to(root).parts
    return parts[1:] if _split_of(parts[0]) in ("train", *HELD_OUT) else parts


def _tell(others: Sequence[Path]) -> None:
    warnings.warn(
        f"{len(others)} files are no images by their endings and are passed over, the first is "
        f"{others[0]}",
        InputWarning,
        stacklevel=2,
    )


def _divide(by_class: dict[str, list[Path]], reading: Reading) -> dict[str, dict[str, list[Path]]]:
    """Returns the files by split and class, a share of each class held out."""
    assert reading.test_fraction is not None
    sizes = [len(group) for group in by_class.values()]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    held = hold_out(labels, reading.test_fraction)
    return {
        split: {
            name: [group[i] for i in np.flatnonzero(held[split][labels == label])]
            for label, (name, group) in enumerate(by_class.items())
        }
        for split in SPLITS
    }
