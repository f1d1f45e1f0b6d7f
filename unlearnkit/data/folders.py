"""Image folders: `root/train/<class>/*.png` and `root/test/<class>/*.png`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from unlearnkit.data.images import decode_image
from unlearnkit.data.source import (
    SPLITS,
    Description,
    Pixels,
    Progress,
    fingerprint_files,
    measure,
)

_REPORT_EVERY = 500


@dataclasses.dataclass(frozen=True)
class Folders:
    """The images under `root`, one folder per class; sorted names of the classes are the labels.

    All images have one size and are all grey or all RGB. Hidden files are passed over.
    """

    root: Path

    @property
    def cache(self) -> Path:
        """A hidden folder inside the root, where no class or split is looked for."""
        return self.root / ".unlearnkit" / self.root.resolve().name

    def describe(self) -> Description:
        """Returns shape, classes and sizes; decodes the first image."""
        files = {split: self._files(split) for split in SPLITS}
        classes = tuple(files["train"])
        first = files["train"][classes[0]][0]
        return Description(
            str(self.root),
            decode_image(first, where=str(first)).shape,
            len(classes),
            classes,
            {split: sum(map(len, by_class.values())) for split, by_class in files.items()},
        )

    def fingerprint(self) -> str:
        """Returns a digest of all files' names, sizes and times."""
        files = (self._files(split) for split in SPLITS)
        groups = (group for by_class in files for group in by_class.values())
        paths = (path for group in groups for path in group)
        return fingerprint_files(paths, root=self.root)

    def read(self, split: str, progress: Progress | None) -> Pixels:
        """Returns one split, ordered by class and name."""
        train = self._files("train")
        labels = {name: label for label, name in enumerate(train)}
        by_class = self._files(split)
        unknown = sorted(set(by_class) - set(labels))
        if unknown:
            raise ValueError(
                f"{self.root / split} must hold classes of {self.root / 'train'}, got "
                f"{', '.join(unknown)}; the training classes are {', '.join(labels)}"
            )
        examples = [(path, labels[name]) for name, group in by_class.items() for path in group]
        first = next(iter(train.values()))[0]
        shape = decode_image(first, where=str(first)).shape
        x = np.empty((len(examples), *shape), np.uint8)
        for i, (path, _) in enumerate(examples):
            image = decode_image(path, where=str(path))
            if image.shape != shape:
                raise ValueError(
                    f"images must have one size and number of channels, got {image.shape} in "
                    f"{path} and {shape} in {first}; resize or convert them"
                )
            x[i] = image
            if progress is not None and ((i + 1) % _REPORT_EVERY == 0 or i + 1 == len(x)):
                progress(i + 1, len(x))
        return measure(x, np.asarray([label for _, label in examples]), white=255)

    def _files(self, split: str) -> dict[str, list[Path]]:
        """Returns the files of a split by class, both sorted."""
        folder = self.root / split
        if not folder.is_dir():
            there = sorted(p.name for p in self.root.iterdir() if not p.name.startswith("."))
            raise FileNotFoundError(
                f"{self.root} must hold the folders train and test with a folder per class; "
                f"it lacks {split} and holds {', '.join(there) or 'nothing'}"
            )
        by_class: dict[str, list[Path]] = {}
        for group in sorted(p for p in folder.iterdir() if p.is_dir()):
            if group.name.startswith("."):
                continue
            by_class[group.name] = sorted(
                p for p in group.iterdir() if p.is_file() and not p.name.startswith(".")
            )
            if not by_class[group.name]:
                raise ValueError(
                    f"the class folder {group} holds no images; add some or remove the folder"
                )
        if not by_class:
            raise ValueError(f"{folder} must hold a folder for each class, and holds none")
        return by_class
