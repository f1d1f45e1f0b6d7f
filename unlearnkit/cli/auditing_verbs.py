"""What `audit` does: reads outputs, or computes them, attacks them, and says what that shows."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import jax
import numpy as np

from unlearnkit.auditing import (
    MembershipInference,
    Outputs,
    audit_margins,
    audit_outputs,
    least_p_value,
    lira_scores,
    needs,
    rank_p_value,
    read_easydub_folder,
    read_lira_folder,
    read_outputs,
    score_attack,
)
from unlearnkit.auditing.intervals import CONFIDENCE
from unlearnkit.auditing.lira import Mode
from unlearnkit.base import Audited, Dataset, Model, Variables
from unlearnkit.cli.answering import open_network, read_matched, read_rows
from unlearnkit.cli.asking import Matching, OnData
from unlearnkit.cli.verification import check_outputs
from unlearnkit.data.indices import as_indices, check_forget
from unlearnkit.data.lists import read_positions
from unlearnkit.io.files import as_json, write_json
from unlearnkit.kernels import FEATURES, FeatureName
from unlearnkit.training import predict
from unlearnkit.validation import check_held_out, check_known

if TYPE_CHECKING:
    from unlearnkit.cli.auditing import Audit

_AUC = "mia_loss_logistic_auc"
_TOLD, _NOT_TOLD = "told apart", "not told apart"
_WIDTH = 79
_NOT_SHOWN = (
    "This cannot show that the examples have no influence: another attack may find what this one "
    "does not, and a network may answer as if it had forgotten and still hold them. It is no "
    "certificate."
)


def audit(options: Audit) -> int:
    """Audits, and says what was found; returns the exit code."""
    check_outputs(None if options.json == Path("-") else options.json)
    for feature in options.attacks:
        check_known("attacks", feature, FEATURES)
    if (options.logits is None) == (options.after is None):
        raise ValueError(
            "give outputs by --logits FILE.npz, or weights by --after FILE with --model, --data "
            "and --forget"
        )
    if options.logits is not None and options.logits.is_dir():
        return _audit_folder(options, options.logits)
    after, before, reference = _read(options)
    sizes = {name: len(y) for name, y in after.labels.items()}
    _check_enough(sizes)
    found = audit_outputs(
        jax.random.key(options.seed),
        after,
        before=before,
        reference=reference,
        attacks=_attacks(options.attacks),
    )
    metrics = {**found.metrics, "rank_p_value": _ranked(found)}
    verdict = judge(metrics, sizes["forget"])
    return _say(options, verdict, sizes, metrics, summary(metrics, sizes, verdict))


def _say(
    options: Audit,
    verdict: str,
    sizes: Mapping[str, int],
    metrics: Mapping[str, float],
    lines: Sequence[str],
) -> int:
    """Prints and writes what was found; returns the exit code."""
    said = as_json({"verdict": verdict, "sizes": dict(sizes), **metrics})
    if options.json == Path("-"):
        print(json.dumps(said, allow_nan=False))
    else:
        print("\n".join(lines))
        if options.json is not None:
            write_json(options.json, said)
    return 0 if verdict == _NOT_TOLD else 1


def _attacks(names: Sequence[str]) -> list[MembershipInference]:
    further = [name for name in get_args(FeatureName) if name in names and name != "loss"]
    return [MembershipInference(name, "logistic") for name in ("loss", *further)]


def _read(options: Audit) -> tuple[Outputs, Outputs | None, Outputs | None]:
    """Returns the outputs after, before and of the reference."""
    given = (options.before, options.reference)
    if options.logits is not None:
        after = _from_file(options, options.logits)
        before, reference = (None if path is None else _from_file(options, path) for path in given)
        return after, before, reference
    assert options.after is not None
    for name in ("model", "data", "forget"):
        if getattr(options, name) is None:
            raise ValueError(f"--after is weights, which need --{name} to be audited")
    matching = Matching(options.part, options.names, options.by_order)
    network = open_network(_on_data(options), (), options.after, name="after", matching=matching)
    assert network.weights is not None
    train, test, _ = network.pair
    rows = read_rows(str(options.forget), train, jax.random.key(options.seed))
    unseen = test if options.unseen is None else test.take(_unseen(options.unseen, test))
    parts = {
        "forget": train.take(rows),
        "test": unseen,
        "retain": train.take(np.setdiff1d(np.arange(train.size), rows)),
    }
    check_held_out((train,), unseen, name="the unseen rows")
    after = _ask(network.model, network.weights.variables, parts)
    others: list[Outputs | None] = []
    for path in given:
        if path is not None and path.suffix.lower() == ".npz" and _is_outputs(path):
            others.append(_from_file(options, path))
        elif path is not None:
            others.append(
                _ask(network.model, read_matched(path, network.model, matching).variables, parts)
            )
        else:
            others.append(None)
    before, reference = others
    return after, before, reference


def _on_data(options: Audit) -> OnData:
    return OnData(
        data=str(options.data),
        model=str(options.model),
        out=Path(),
        data_dir=options.data_dir,
        reading=options.reading,
        normalisation=options.normalisation,
        seed=options.seed,
    )


def _from_file(options: Audit, path: Path) -> Outputs:
    return read_outputs(path, probabilities=options.probabilities)


def _is_outputs(path: Path) -> bool:
    with np.load(path, allow_pickle=False) as file:
        return any(name.lower().endswith("_forget") for name in file)


def _unseen(path: Path, test: Dataset) -> np.ndarray:
    rows = as_indices(read_positions(path), name=str(path))
    if rows.dtype != np.bool_ and len(np.unique(rows)) == test.size:
        return np.arange(test.size)
    return check_forget(rows, test.size)


def _ask(model: Model, variables: Variables, parts: Mapping[str, Dataset]) -> Outputs:
    logits = {n: np.asarray(predict(model, variables, part.x)) for n, part in parts.items()}
    return Outputs(logits, {name: np.asarray(part.y) for name, part in parts.items()})


def _check_enough(sizes: Mapping[str, int]) -> None:
    """Refuses so few examples that nothing could be told, and says how many would do.

    Raises:
      ValueError: too few.
    """
    forgotten, unseen = sizes["forget"], sizes["test"]
    if least_p_value(forgotten, unseen) <= 1 - CONFIDENCE + 1e-12:
        return
    wanted = "; ".join(
        f"{need.unseen} to show that {need.statement}"
        for need in needs(forgotten, unseen)
        if need.unseen is not None
    )
    raise ValueError(
        f"with {forgotten} forgotten and {unseen} unseen rows no outcome could tell them apart; "
        f"unseen rows that are needed: {wanted}"
    )


def _ranked(found: Audited) -> float:
    return rank_p_value(found.curves["loss_forget"], found.curves["loss_test"])


def judge(metrics: Mapping[str, float], forgotten: int) -> str:
    """Returns `told apart` where the examples are not like unseen ones, or like the reference's.

    Of several examples where the interval of the AUC excludes the reference's, or chance; of a
    single one, which has no such interval, where its loss is among the 5 % most extreme.

    Args:
      metrics: of `audit_outputs`, with `rank_p_value`.
      forgotten: how many examples.
    """
    if forgotten == 1 and f"reference_{_AUC}" not in metrics:
        return _TOLD if metrics["rank_p_value"] <= 1 - CONFIDENCE else _NOT_TOLD
    goal = metrics.get(f"reference_{_AUC}", 0.5)
    inside = metrics[f"{_AUC}_low"] <= goal <= metrics[f"{_AUC}_high"]
    return _NOT_TOLD if inside else _TOLD


def summary(metrics: Mapping[str, float], sizes: Mapping[str, int], verdict: str) -> list[str]:
    """Returns the lines that are printed.

    Args:
      metrics: of `audit_outputs`, with `rank_p_value`.
      sizes: examples by set.
      verdict: of `judge`.
    """

    def bounded(name: str) -> str:
        low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
        ends = "of one row, no interval" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"
        return f"{metrics[name]:.3f} {ends}"

    counts = ", ".join(f"{name} {count}" for name, count in sizes.items())
    lines = [
        f"examples           {counts}",
        f"accuracy, forget   {bounded('accuracy_forget')}",
        f"accuracy, unseen   {metrics['accuracy_test']:.3f}",
        f"attack's AUC       {bounded(_AUC)}",
        f"ranks of losses    p = {metrics['rank_p_value']:.2g}",
    ]
    if f"before_{_AUC}" in metrics:
        lines += [
            f"  before           {bounded('before_' + _AUC)}",
            f"loss, change       forget {bounded('change_loss_forget')}",
            f"                   unseen {bounded('change_loss_test')}",
        ]
    if f"reference_{_AUC}" in metrics:
        lines.append(f"  of the reference {metrics[f'reference_{_AUC}']:.3f}")
        lines.append(f"L1 to reference    forget {metrics['activation_distance_forget']:.3f}")
    against = "the reference's" if f"reference_{_AUC}" in metrics else "chance, 0.5"
    told = {
        _TOLD: f"The forget set is told apart: the attack's AUC is not {against}.",
        _NOT_TOLD: f"The forget set is not told apart: the AUC may well be {against}.",
    }[verdict]
    if sizes["forget"] == 1 and f"reference_{_AUC}" not in metrics:
        told = {
            _TOLD: "The row is told apart: its loss is among the 5 % that are most extreme.",
            _NOT_TOLD: "The row is not told apart: unseen rows have losses like its own.",
        }[verdict]
    return [*lines, "", *_wrapped(told), *_strength(sizes), "", *_wrapped(_NOT_SHOWN)]


def _strength(sizes: Mapping[str, int]) -> list[str]:
    """Returns what so many examples can show, as lines."""
    forgotten, unseen = sizes["forget"], sizes["test"]
    lines = [f"what {forgotten} forgotten and {unseen} unseen rows can show:"]
    for need in needs(forgotten, unseen):
        lacking = "never" if need.unseen is None else f"with {need.unseen} unseen"
        lines.append(f"  that {need.statement:<54} {'yes' if need.met else lacking}")
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH)


def _audit_folder(options: Audit, folder: Path) -> int:
    if (folder / "margins").is_dir():
        return _audit_easydub(options, folder)
    if (folder / "y_train.npy").is_file():
        return _audit_lira(options, folder)
    raise ValueError(
        f"{folder} is neither LiRA's layout (y_train.npy, experiment*/keep.npy and logits/*.npy) "
        "nor EasyDUB's (margins/DATA/oracle/…); of one network give an .npz file"
    )


def _audit_easydub(options: Audit, folder: Path) -> int:
    networks = options.target or "pretrain"
    margins = read_easydub_folder(folder, forget_set=options.forget_set, networks=networks)
    found = audit_margins(margins).metrics
    sizes = {split: values.shape[1] for split, values in margins.networks.items()}
    verdict = _TOLD if found["excess_forget_low"] > 0 else _NOT_TOLD
    lines = [f"{networks} and retrained networks, {found['networks']:.0f} of each"]
    for split in sizes:
        low, high = found[f"excess_{split}_low"], found[f"excess_{split}_high"]
        lines.append(
            f"KLoM, {split:<7} {found[f'klom_{split}']:.3f}, of retrained ones themselves "
            f"{found[f'floor_{split}']:.3f}; excess [{low:.3f}, {high:.3f}]"
        )
    told = {
        _TOLD: "The networks are told from retrained ones on the forget set.",
        _NOT_TOLD: "The networks are not told from retrained ones on the forget set.",
    }[verdict]
    return _say(options, verdict, sizes, found, [*lines, "", *_wrapped(f"{told} {_NOT_SHOWN}")])


def _audit_lira(options: Audit, folder: Path) -> int:
    """Attacks one network of a folder by the others."""
    networks = read_lira_folder(folder)
    names = sorted(path.name for path in folder.glob("experiment*") if path.is_dir())
    target = options.target or names[-1]
    check_known("target", target, names)
    place, n = names.index(target), networks.is_in.shape[1]
    rest = [i for i in range(len(names)) if i != place]
    shadows = networks._replace(margins=networks.margins[rest], is_in=networks.is_in[rest])
    members = networks.is_in[place]
    if options.forget is not None:
        listed = read_positions(Path(options.forget))
        rows = check_forget(as_indices(listed, name=options.forget), n)
        members = np.isin(np.arange(n), rows)
    others = ~networks.is_in[place] & ~members
    sizes = {"forget": int(members.sum()), "test": int(others.sum())}
    _check_enough(sizes)
    counts = shadows.is_in[:, members | others].sum(axis=0)
    online = bool((counts >= 2).all() and (len(rest) - counts >= 2).all())
    mode: Mode = "online" if online else "offline"
    asked = members | others
    shadows = shadows._replace(margins=shadows.margins[:, asked], is_in=shadows.is_in[:, asked])
    scores = lira_scores(networks.margins[place][asked], shadows, mode=mode)
    is_member = members[asked]
    found = score_attack(scores[is_member], scores[~is_member]).metrics
    verdict = _NOT_TOLD if found["auc_low"] <= 0.5 <= found["auc_high"] else _TOLD
    lines = [
        f"{target} under LiRA ({mode}), {len(rest)} shadows",
        f"examples           members {sizes['forget']}, unseen {sizes['test']}",
        f"AUC                {found['auc']:.3f} [{found['auc_low']:.3f}, {found['auc_high']:.3f}]",
        f"TPR at FPR 0.01    {found['tpr_at_fpr_0.01']:.3f}",
    ]
    lines += ["", f"The members are {verdict}.", *_strength(sizes), "", *_wrapped(_NOT_SHOWN)]
    return _say(options, verdict, sizes, found, lines)
