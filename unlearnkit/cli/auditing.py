"""`unlearnkit audit`: whether an unlearned network still tells the forgotten rows from others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from unlearnkit.cli.interruption import Interruption
from unlearnkit.reading import AS_FOUND, Reading

_Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT")]


@dataclasses.dataclass(frozen=True)
class Audit:
    """Audits an unlearned network: by its weights and data, or by its outputs alone.

    A membership attack on the losses tells the forget set from examples that no network was
    trained on, or does not. No retrained network is needed. Exit code: 0 it does not, 1 it does, 2
    no audit was possible.

    Attributes:
      logits: an .npz file of the outputs after unlearning: logits_forget [m, c], labels_forget [m],
        logits_test, labels_test, and maybe those of retain; [n, 1, queries, c] are averaged. Or a
        folder of LiRA's (y_train.npy, experiment*) or of EasyDUB's layout (margins).
      after: in its place the weights after unlearning; needs --model, --data and --forget.
      before: the same of the network that was to forget: an .npz file, or weights.
      reference: the same of a network that was retrained without the forget set: it then is what
        the attack's success is compared with, in the place of chance. An .npz file, or weights.
      model: a network's name, maybe with settings; or package.module:factory.
      data: a dataset's name, or the path of a file or folder.
      forget: the list of forgotten rows of the training set: a file, or a short form as class:3;
        with a folder of LiRA's, rows of its y_train.npy.
      unseen: a list of rows of the test set, which nobody trained on; by default all of it.
      data_dir: where prepared TFDS datasets are.
      reading: how files of your own are read that do not say it themselves.
      part: the beginning of the names in files of weights that count, as state_dict_ema.
      names: OLD=NEW for a beginning of names in these files and what the network calls it.
      by_order: match layers whose names tell nothing by the order in which they stand.
      normalisation: of the data; by default what the weights say, else standard.
      target: of a folder: the network that is audited (LiRA: an experiment*, by default the last;
        EasyDUB: a folder beside oracle, by default pretrain).
      forget_set: of a folder of EasyDUB's: which.
      probabilities: the files hold probabilities.
      attacks: features that further attacks look at: confidence, entropy, modified_entropy, margin,
        probabilities, logits.
      seed: of the attacks' subsamples and folds.
      json: a file for all metrics; - prints them in the place of the summary.
    """

    logits: Path | None = None
    after: Path | None = None
    before: Path | None = None
    reference: Path | None = None
    model: _Text = None
    data: _Text = None
    forget: _Text = None
    unseen: Path | None = None
    data_dir: Path | None = None
    reading: tyro.conf.OmitArgPrefixes[Reading] = AS_FOUND
    part: str | None = None
    names: tuple[str, ...] = ()
    by_order: bool = False
    normalisation: str | None = None
    target: str | None = None
    forget_set: int = 1
    probabilities: bool = False
    attacks: tuple[str, ...] = ()
    seed: int = 0
    json: Path | None = None

    def __call__(self, interruption: Interruption) -> int:
        """Returns the exit code."""
        from unlearnkit.cli import auditing_verbs

        return auditing_verbs.audit(self)
