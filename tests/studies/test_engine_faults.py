"""A study that is killed, or whose disk is full, at any moment gives the same table in the end."""

import itertools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import killed_study
import pytest
from store_faults import Fault, full_disk
from tiny_study import KEY, study, table

from unlearnkit.studies import Store, StoreWarning, run

ROOT = Path(__file__).parents[2]
KILLS = 20


def test_kills_spread_over_a_run_change_nothing(tmp_path):
    ended = subprocess.run(
        [sys.executable, killed_study.__file__, str(tmp_path), str(KILLS)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["same_table"]
    assert found["same_stages"]
    assert found["kept"]
    assert found["rows"] == (2 + 2) * 3
    there = [kill["stages"] for kill in found["kills"]]
    assert sum(kill["killed"] for kill in found["kills"]) == KILLS
    # They struck along the whole run: there was always more, and little was left in the end.
    assert there == sorted(there)
    assert there[0] < found["all"] / 10
    assert there[-1] > 0.9 * found["all"]
    assert len(set(there)) > KILLS / 2


def test_a_disk_that_is_full_at_any_write_changes_nothing(tmp_path):
    asked = study(seeds=1, methods={})
    whole = table(run(asked, KEY))
    struck = 0
    for k in itertools.count(1):
        store, fault = Store(tmp_path / str(k)), Fault(k, full_disk)
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            for module, name, function in list(fault.patches()):
                if module is os:
                    patch.setattr(module, name, function)
            found = table(run(asked, KEY, store=store))
        assert found == whole
        assert table(run(asked, KEY, store=store)) == whole
        if fault.calls < k:
            break
        struck += 1
    assert struck > 50
