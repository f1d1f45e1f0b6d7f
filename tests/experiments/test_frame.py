import dataclasses
import warnings

import pytest

from experiments.frame import PaperCommand, collect_warnings


def test_warnings_of_the_category_are_told_once_and_others_go_on():
    messages = ["before"]

    def hear():
        with collect_warnings(messages, UserWarning):
            for text in ("before", "first", "second", "first"):
                warnings.warn(text, UserWarning, stacklevel=1)
            assert messages == ["before", "first", "second"]  # at once
            warnings.warn("another", RuntimeWarning, stacklevel=1)

    with pytest.warns(RuntimeWarning, match="another"):
        hear()
    assert messages == ["before", "first", "second"]


@dataclasses.dataclass(frozen=True)
class Some(PaperCommand):
    paper = "tgda"
    dataset: str | None = None
    done: list = dataclasses.field(default_factory=list)

    def settings(self):
        return {"one": 1, "two": 2, "three": 3}

    def load(self, setting):
        if setting == 2:
            raise FileNotFoundError("no mnist here")
        return 10 * setting

    def run_setting(self, name, setting, data, on_stage):
        on_stage("training", 0, 1)
        self.done.append((name, setting, data))


def test_missing_data_are_told_and_left_out_unless_asked_for():
    told = []

    def tell(stage, done, total):
        told.append(stage)

    command = Some()
    command.run_all(tell)
    assert command.done == [("one", 1, 10), ("three", 3, 30)]
    missing = "two: data are not present (no mnist here); going on without them"
    assert told == ["one: training", missing, "three: training"]
    with pytest.raises(FileNotFoundError, match="no mnist here"):
        Some(dataset="two").run_all(tell)
    asked = Some(dataset="three")
    asked.run_all(tell)
    assert asked.done == [("three", 3, 30)]
    with pytest.raises(ValueError, match="dataset must be one of one, two, three at scale cpu"):
        Some(dataset="four").run_all(tell)
