"""Law 2. `run` is idempotent: killed at any moment, the same command again finishes the study."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from diffsearch.study.ledger import Ledger
from diffsearch.study.proposals import IDLE_PROPOSALS

ONE = {"training.loss": "x0-l2", "sampling.ema": [0, 100]}
SAID_OF_ONE = 12  # what is said of `ONE`: handed out, 2 x (trained, 2 x (sampled, scored)), its end


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, request):
    """The study `ONE` as a run that nothing disturbs leaves it: evaluation lines and checkpoint hashes."""
    laboratory = request.getfixturevalue("new_laboratory")(tmp_path_factory.mktemp("whole"))
    laboratory.run(ONE)
    return laboratory.lines(), laboratory.checkpoints()


def test_a_second_run_computes_nothing_and_writes_nothing(laboratory):
    laboratory.run()
    before = files(laboratory.store.root)
    summary = laboratory.run()
    assert summary.trained_epochs == summary.evaluations == 0 and summary.runs == 2
    assert files(laboratory.store.root) == before


def test_a_second_run_takes_seconds_and_needs_no_ray(laboratory):
    """In a process of its own, imports included: 10 s of one core at the most."""
    laboratory.run()
    study = laboratory.folder / "tiny.yaml"
    study.write_text(yaml.safe_dump(yaml.safe_load(laboratory.spec().text)))
    code = (
        "import sys, time; from pathlib import Path; from diffsearch.space.load import load; "
        "from diffsearch.store import Store; from diffsearch.study.driver import run_study; "
        f"store = Store.open(Path({str(laboratory.store.root)!r})); spec = load({str(study)!r}); "
        f"summary = run_study(spec, store, command='', tracking_uri={'http://127.0.0.1:1'!r}); "
        "print(summary.trained_epochs, summary.evaluations, 'ray' in sys.modules, time.process_time())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *computed, ray, seconds = said.stdout.split()
    assert computed == ["0", "0"] and ray == "False" and float(seconds) < 10


def test_a_study_says_as_much_as_the_next_test_kills_at(laboratory):
    assert laboratory.run_and_die(ONE, SAID_OF_ONE - 1) and not laboratory.run_and_die(ONE, SAID_OF_ONE)


@pytest.mark.parametrize("said", range(SAID_OF_ONE))
def test_a_run_killed_after_any_item_goes_on_bit_for_bit(laboratory, uninterrupted, said):
    assert laboratory.run_and_die(ONE, said)
    laboratory.run(ONE)
    assert (laboratory.lines(), laboratory.checkpoints()) == uninterrupted


@pytest.mark.parametrize("algorithm", ["grid", "random", "sequential"])
def test_the_whole_table_is_the_same_after_kills(laboratory, new_laboratory, tmp_path, algorithm):
    changes = {"search.algorithm": algorithm, "diffusion.steps": [2, 3], "training.epochs": [1]}
    changes |= {"search.runs": 3} if algorithm == "random" else {}
    whole = new_laboratory(tmp_path / "whole")
    whole.run(changes)
    while laboratory.run_and_die(changes, 5):  # each session dies in its second run, having finished one
        pass
    assert laboratory.table() == whole.table()


def test_finalists_are_the_same_after_kills(laboratory, new_laboratory, tmp_path):
    changes = {"training.epochs": [1], "search.finalists": {"top": 1, "repeats": 2, "samples": 90}}
    whole = new_laboratory(tmp_path / "whole")
    whole.run(changes)
    while laboratory.run_and_die(changes, 5):
        pass
    assert laboratory.table() == whole.table() and len(whole.table()) == 4


def test_runs_that_a_dead_driver_left_running_come_first(laboratory):
    changes = {"search.algorithm": "random", "search.runs": 3, "diffusion.steps": [2, 3, 4], "training.epochs": [1]}
    assert laboratory.run_and_die(changes, 2)  # within the first run
    [begun] = laboratory.history().runs
    laboratory.run(changes)
    assert laboratory.history().runs[0].key == begun.key
    assert laboratory.trained[0][0] == begun.key or begun.epochs  # its epoch was kept: then it is only scored


def test_a_killed_journal_opens_at_once(laboratory):
    laboratory.run()
    folder = laboratory.store.study("tiny")
    journal = folder / "journal.log"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5, "worker_id": "to')
    (folder / "journal.log.lock").touch()
    began = time.monotonic()
    laboratory.run({"training.loss": ["x0-l2", "v-l2", "epsilon-l2"]})
    assert time.monotonic() - began < 10 and len(laboratory.trained) == 2
    assert all(line.endswith(b"}\n") for line in journal.read_bytes().splitlines(keepends=True))


@pytest.mark.parametrize("again", [{"evaluation.metrics": ["fd-digits", "kd-digits"]}, {"training.epochs": [1, 2]}])
def test_a_changed_study_that_is_killed_asks_for_all_earlier_points(laboratory, again):
    """The points of a search are its own; a kill while they are asked again must not replace them by others."""
    changes = {
        "search.algorithm": "random",
        "search.runs": 4,
        "training.learning_rate": {"log": [1e-4, 1e-2]},
        "training.loss": "x0-l2",
        "training.epochs": [1],
    }
    laboratory.run(changes)
    keys = [run.key for run in laboratory.history().runs]
    changes["search.algorithm"] = {"name": "tpe", "startup_trials": 1}  # would choose others by itself
    assert laboratory.run_and_die({**changes, **again}, 4)
    laboratory.run({**changes, **again})
    assert [run.key for run in laboratory.history().runs] == keys


def test_more_runs_extend_a_study(laboratory):
    changes = {"search.algorithm": "random", "training.learning_rate": {"log": [1e-4, 1e-2]}, "training.epochs": [1]}
    laboratory.run({**changes, "search.runs": 2})
    first = laboratory.table()
    laboratory.run({**changes, "search.runs": 3})
    assert len(laboratory.trained) == 1 and laboratory.table()[:2] == first


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_a_search_over_a_finite_space_ends_for_good(laboratory, algorithm):
    """Without `runs` every point is found, also the last one; a second run proposes nothing more."""
    changes = {"search.algorithm": algorithm, "diffusion.steps": [2, 3], "training.epochs": [1]}
    laboratory.run(changes)
    assert len(laboratory.history().runs) == 4
    journal = (laboratory.store.study("tiny") / "journal.log").read_bytes()
    laboratory.run(changes)
    assert (laboratory.store.study("tiny") / "journal.log").read_bytes() == journal


def test_a_range_of_whole_numbers_that_is_used_up_ends_for_good(laboratory):
    changes = {"search.algorithm": "random", "diffusion.steps": {"int": [1, 2]}, "training.loss": "x0-l2"}
    changes |= {"training.epochs": [1], "search.runs": 5}
    laboratory.run(changes)
    journal = (laboratory.store.study("tiny") / "journal.log").read_bytes()
    laboratory.run(changes)
    assert len(laboratory.history().runs) == 2 and IDLE_PROPOSALS > 2
    assert (laboratory.store.study("tiny") / "journal.log").read_bytes() == journal


def test_the_wall_budget_counts_all_sessions(laboratory):
    endless = {"search.algorithm": "random", "training.learning_rate": {"log": [1e-4, 1e-2]}, "training.epochs": [1]}
    laboratory.run({**endless, "search.runs": 1, "budget.wall": "1h"})
    ledger = Ledger.open(laboratory.store.study("tiny"))
    spent = ledger.wall_s
    assert spent > 0
    ledger.tick("an earlier session", 3600)  # what a driver that worked for an hour has written
    laboratory.run({**endless, "search.runs": 5, "budget.wall": "1h"})
    assert laboratory.trained == []
    laboratory.run({**endless, "search.runs": 2, "budget.wall": "2h"})
    assert len(laboratory.trained) == 1
    assert laboratory.history().wall_s > 3600 + spent and laboratory.history().sessions == 2


def files(root: Path) -> dict[str, bytes]:
    """Everything in a store, but for leases and the header, which says when and how it was run last."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "lease" not in path.name and path.name != "study.json"
    }
