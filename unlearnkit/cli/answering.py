"""Reads what commands about a user's own network ask for, and writes what they answer."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from unlearnkit import data, models, unlearning
from unlearnkit.base import Dataset, Model, Normalisation, Tokens, Unlearner
from unlearnkit.cli.asking import Matching, OnData
from unlearnkit.cli.declaring import read_entry, read_settings, split
from unlearnkit.cli.inspecting import pair_of_names
from unlearnkit.cli.interruption import Interruption
from unlearnkit.data.indices import as_indices, check_forget
from unlearnkit.data.normalising import NORMALISATIONS, describe_normalisation
from unlearnkit.io.files import as_json, sha256_of_file, write_json
from unlearnkit.io.provenance import provenance
from unlearnkit.reading import said_of
from unlearnkit.reporting import RunFolderError
from unlearnkit.studies import Pair
from unlearnkit.studies.declared import make_part, read_class_names, read_pair
from unlearnkit.studies.store.claims import locked
from unlearnkit.training import Recipe
from unlearnkit.weights import WeightFile, read_container
from unlearnkit.weights.containers import Container
from unlearnkit.weights.reading import weights_of

RECORD = "record.json"
_FORMS = ("random", "within", "class", "file")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network, its data, and how it was, or is to be, trained.

    Attributes:
      model: the network.
      pair: training and test set.
      recipe: of its training.
      recipe_known: whether the user or the weights said so.
      weights: the trained weights as they were read; None of a network that is to be trained.
      file: of the weights.
      classes: the names of the labels, in their order; none where they are numbers.
    """

    model: Model
    pair: Pair
    recipe: Recipe
    recipe_known: bool
    weights: WeightFile | None = None
    file: Path | None = None
    classes: tuple[str, ...] = ()

    def described(self) -> dict[str, object]:
        """Returns what a record says of it."""
        file = self.file
        where = {} if file is None else {"file": str(file), "sha256": digest_of(file)}
        return {
            "weights": where,
            "network": {
                "input_shape": list(self.model.input_shape),
                "n_classes": self.model.n_classes,
                "classes": list(self.classes),
            },
            "normalisation": describe_normalisation(self.pair.train.normalisation),
            "recipe": dataclasses.asdict(self.recipe) if self.recipe_known else None,
            "sizes": {"train": self.pair.train.size, "test": self.pair.test.size},
        }


def open_network(
    options: OnData,
    recipe: Sequence[str],
    weights: Path | None,
    *,
    name: str = "weights",
    matching: Matching = Matching(),  # noqa: B008 (immutable)
) -> Network:
    """Returns the network of a command, after checking all that it reads.

    Args:
      options: of the command.
      recipe: settings of the training.
      weights: a file, or None.
      name: what messages call the weights.
      matching: how the names in their file are matched.

    Raises:
      OSError: a file that is not there.
      ValueError: settings, data or weights that do not fit.
    """
    metadata: Mapping[str, object] = {}
    container = None
    if weights is not None:
        if not weights.exists():
            raise FileNotFoundError(f"there is no file {weights} ({name})")
        container = read_container(weights)
        metadata = container.rest if isinstance(container.rest, Mapping) else {}
    pair = open_data(options, metadata.get("normalisation"))
    classes = read_class_names(*_settings_of(options))
    _check_classes(metadata.get("classes"), classes, name)
    model = make_network(options.model, pair)
    said = read_settings("recipe", recipe)
    known = metadata.get("recipe")
    if isinstance(known, dict):
        said = {**known, **said}
    recipe_known = bool(said)
    if "batch_size" not in said:
        said = {**said, "batch_size": min(Recipe().batch_size, max(1, pair.train.size // 4))}
    network = Network(model, pair, make_part("recipe", Recipe, said), recipe_known, classes=classes)
    if weights is None:
        return network
    found = read_matched(weights, model, matching, container)
    for note in found.notes:
        print(f"{weights}: {note}", file=sys.stderr)
    return dataclasses.replace(network, weights=found, file=weights)


def read_matched(
    file: Path, model: Model, matching: Matching, container: Container | None = None
) -> WeightFile:
    """Returns the weights of a file.

    Args:
      file: of the weights.
      model: the network.
      matching: how names are matched.
      container: what the file holds, where it is read already.

    Raises:
      WeightsError: it cannot be read, or does not fit.
    """
    return weights_of(
        read_container(file) if container is None else container,
        model,
        path=file,
        part=matching.part,
        names=dict(pair_of_names(text) for text in matching.names),
        by_order=matching.by_order,
    )


def open_data(options: OnData, known: object = None) -> Pair:
    """Returns the data of a command.

    Args:
      options: of the command.
      known: the normalisation that weights say, as `describe_normalisation` has it, or None.
    """
    name, settings = _settings_of(options)
    if options.normalisation is not None:
        settings["normalisation"] = parse_normalisation(options.normalisation)
    elif known is not None and "normalisation" not in settings and "tokens" not in settings:
        settings["normalisation"] = read_normalisation(known)
    return read_pair(name, settings)


def _settings_of(options: OnData) -> tuple[str, dict[str, object]]:
    """Returns name and settings of the data of a command, as of a `[data.NAME]` table."""
    settings: dict[str, object]
    if Path(options.data).expanduser().exists():
        name, settings = options.data, {}
    else:
        name, _, rest = options.data.partition(":")
        settings = read_settings(f"data {name}", split(rest))
    if options.data_dir is not None:
        settings["data_dir"] = str(options.data_dir)
    return name, settings | said_of(options.reading)


def _check_classes(known: object, classes: Sequence[str], name: str) -> None:
    """Refuses data whose labels are other classes than those that weights were trained on."""
    if isinstance(known, list) and known and classes and known != list(classes):
        raise ValueError(
            f"the {name} were trained on the classes {', '.join(map(str, known[:10]))}, and the "
            f"data have {', '.join(classes[:10])}: labels would stand for others; give data whose "
            "training set holds the same classes"
        )


def parse_normalisation(text: str) -> str | Normalisation:
    """Returns a normalisation by its name, or of means and deviations `m,m,m/s,s,s`.

    Raises:
      ValueError: neither.
    """
    if text in NORMALISATIONS:
        return text
    parts = [part.split(",") for part in text.split("/")]
    try:
        mean, std = (tuple(float(number) for number in part) for part in parts)
    except ValueError:
        raise ValueError(
            f"normalisation must be {', '.join(NORMALISATIONS)}, or means/deviations as "
            f"0.49,0.48,0.45/0.25,0.24,0.26, got {text!r}"
        ) from None
    return Normalisation("own", mean, std)


def read_normalisation(said: object) -> Normalisation | Tokens:
    """Returns the normalisation that `describe_normalisation` described.

    Raises:
      ValueError: it says something else.
    """
    try:
        assert isinstance(said, Mapping)
        if "vocabulary" in said:
            return Tokens(int(said["vocabulary"]), int(said["pad"]))
        mean, std = (tuple(float(n) for n in said[part]) for part in ("mean", "std"))
        return Normalisation(str(said["name"]), mean, std)
    except (AssertionError, KeyError, TypeError, ValueError):
        raise ValueError(
            f"the weights' sidecar names no sound normalisation ({said!r:.100}); give "
            "--normalisation"
        ) from None


def make_network(text: str, pair: Pair) -> Model:
    """Returns the network of a name with settings, or of package.module:factory.

    Args:
      text: of the command line.
      pair: the data, of which the network takes shape and classes.

    Raises:
      ValueError: an unknown name or setting.
      TypeError: a factory that returns no network.
    """
    known = {
        "input_shape": tuple(pair.train.x.shape[1:]),
        "n_classes": int(pair.train.y.max()) + 1,
    }
    name, settings = read_entry("model", text)
    made: Model = make_part(f"model {name}", partial(models.create, name), {**known, **settings})
    return made


def make_method(text: str, settings: Sequence[str] = ()) -> tuple[str, Unlearner]:
    """Returns a method and its name.

    Args:
      text: `name`, or `name:setting=value,…`.
      settings: more of them, `setting=value`.

    Raises:
      ValueError: an unknown method or setting, or a value that it refuses.
    """
    name, _, rest = text.partition(":")
    said = read_settings(f"method {name}", [*split(rest), *settings])
    return name, make_part(f"method {name}", unlearning.UNLEARNERS.find(name), said)


def read_rows(text: str, train: Dataset, key: jax.Array) -> np.ndarray:
    """Returns the rows to forget, ascending.

    Args:
      text: a file, maybe with column and ids; or a short form as `random:0.1`.
      train: the training set.
      key: draws the rows of a random form.

    Raises:
      OSError: no such file.
      ValueError: no rows, all rows, or rows beyond the data.
    """
    short = text.partition(":")[0] in _FORMS and not Path(text).exists()
    request = data.parse_forget(text if short else f"file:{text}")
    return check_forget(as_indices(request(key, train), name=text), train.size)


@contextlib.contextmanager
def claimed(options: OnData, interruption: Interruption, command: str) -> Iterator[Path]:
    """Yields the folder of the results, which nobody else writes to meanwhile.

    Args:
      options: of the command.
      interruption: is told how to go on.
      command: its name.

    Raises:
      RunFolderError: the folder holds the results of another question, or other files.
    """
    out = options.out
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file; choose a folder by --out")
    if out.exists() and any(out.iterdir()) and not options.overwrite:
        _check_same(out, {"command": command, **options.asked()})
    out.mkdir(parents=True, exist_ok=True)
    interruption.how = "what is done is kept; run the same command again"
    path = out.absolute().with_name(f".{out.absolute().name}.running")
    with locked([path], wait=False) as mine:
        if not mine:
            raise RunFolderError(f"another process writes to {out} now; choose another --out")
        yield out


def _check_same(out: Path, asked: Mapping[str, object]) -> None:
    try:
        found = json.loads((out / RECORD).read_text(encoding="utf-8"))["asked"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RunFolderError(
            f"{out} holds files that are of no such command; choose an empty or a new folder by "
            "--out, or give --overwrite"
        ) from None
    if found != as_json(asked):
        raise RunFolderError(
            f"{out} holds the answer to another question; choose another folder by --out, or give "
            "--overwrite to replace it"
        )


def write_record(
    out: Path,
    options: OnData,
    interruption: Interruption,
    command: str,
    said: Mapping[str, object],
) -> None:
    """Writes what was asked, how, and what came of it.

    Args:
      out: the folder.
      options: of the command.
      interruption: knows the line that was typed.
      command: its name.
      said: what came of it.
    """
    content = {
        "asked": {"command": command, **options.asked()},
        "command": interruption.command,
        **said,
        "provenance": provenance(),
    }
    write_json(out / RECORD, as_json(content))


def print_json(said: Mapping[str, object]) -> None:
    """Prints the outcome of a command as one line of JSON."""
    print(json.dumps(as_json(said), allow_nan=False))


def digest_of(file: Path) -> str | None:
    """Returns the SHA-256 of a file; None of a folder."""
    return sha256_of_file(file) if file.is_file() else None
