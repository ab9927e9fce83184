"""Law 5. One writer for each file, and correctness never rests on it."""

from __future__ import annotations

import json
import os

import pytest
import torch

from diffsearch.errors import StoreError
from diffsearch.files import append_line, read_lines
from diffsearch.records import EpochRecord, Outcome, State
from diffsearch.store import Lease, LeaseLost, Store
from diffsearch.study.driver import claimed
from diffsearch.study.observer import Nobody
from diffsearch.trial import run_trial

ONE = {"training.loss": "x0-l2"}
RECORD = EpochRecord(1, 0.5, 200, 100.0, 2.0, 300.0)


def torn(path, line=b'{"epoch": 2, "scores": {"fd-dig'):
    with path.open("ab") as file:
        file.write(line)


def test_an_append_truncates_a_torn_tail(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, {"number": 1})
    torn(path)
    assert list(read_lines(path)) == [{"number": 1}]  # a reader drops it too
    append_line(path, {"number": 2})
    assert path.read_bytes() == b'{"number": 1}\n{"number": 2}\n'


def test_a_torn_tail_longer_than_a_block_is_truncated_too(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, {"number": 1})
    torn(path, b"x" * 200_000)
    append_line(path, {"number": 2})
    assert path.read_bytes() == b'{"number": 1}\n{"number": 2}\n'


def test_every_torn_file_of_a_study_is_mended(laboratory, new_laboratory, tmp_path):
    whole = new_laboratory(tmp_path / "whole")
    whole.run({**ONE, "training.epochs": [1, 2]})
    laboratory.run({**ONE, "training.epochs": [1]})
    files = [path for path in laboratory.store.root.rglob("*") if path.suffix in (".jsonl", ".log")]
    assert {path.name for path in files} == {"epochs.jsonl", "evaluations.jsonl", "ledger.jsonl", "journal.log"}
    for path in files:
        torn(path)
    laboratory.run({**ONE, "training.epochs": [1, 2]})
    assert laboratory.lines() == whole.lines() and laboratory.table() == whole.table()


def test_the_first_line_of_an_evaluation_wins(laboratory):
    laboratory.run(ONE)
    [key] = laboratory.store.keys()
    folder = laboratory.store.run(key)
    before = folder.evaluations()
    for line in list(read_lines(folder.path / "evaluations.jsonl")):
        line["scores"]["fd-digits"]["value"] = 0.001
        line["scores"]["kd-digits"] = {"value": 1.0, "samples": 70, "extractor": "x", "spread": None}
        append_line(folder.path / "evaluations.jsonl", {**line, "sampling_s": 99.0})
    after = folder.evaluations()
    for name, evaluation in before.items():
        assert after[name].scores["fd-digits"] == evaluation.scores["fd-digits"]
        assert after[name].scores["kd-digits"].value == 1.0  # a later line may add a metric
        assert after[name].sampling_s == evaluation.sampling_s


def test_the_first_line_of_an_epoch_wins(laboratory):
    laboratory.run(ONE)
    [key] = laboratory.store.keys()
    folder = laboratory.store.run(key)
    before = folder.epochs()
    append_line(folder.path / "epochs.jsonl", {**before[0].to_json(), "loss": 0.0})
    assert folder.epochs() == before


@pytest.mark.parametrize("write", ["begin", "add_epoch", "add_evaluation", "set_outcome"])
def test_a_lost_lease_refuses_every_write(laboratory, write):
    laboratory.run(ONE)
    [key] = laboratory.store.keys()
    known = laboratory.store.run(key)
    evaluation = next(iter(known.evaluations().values()))
    folder = laboratory.store.run("another")
    arguments = {
        "begin": (known.settings(), "content", {}),
        "add_epoch": (RECORD,),
        "add_evaluation": (evaluation,),
        "set_outcome": (Outcome(State.DIVERGED, "NaN", {"epoch": 1}),),
    }[write]
    first = folder.lease("a")
    with Lease.claim(folder.path / "lease", "b") as second:  # of the same process, as a second attempt is
        assert second.attempt == first.attempt + 1
        with pytest.raises(LeaseLost, match="taken over"):
            getattr(folder, write)(first, *arguments)
        assert {path.name for path in folder.path.iterdir() if "lease" not in path.name} == set()
        getattr(folder, write)(second, *arguments)
    first.give_back()


def test_a_run_that_lost_its_lease_writes_no_checkpoint(laboratory):
    laboratory.run({**ONE, "training.epochs": [1]})
    before = laboratory.checkpoints()

    spec = laboratory.spec({**ONE, "training.epochs": [1, 2]})
    tasks = []

    class Stop(Nobody):
        def heard(self, task, said):
            tasks.append(task)
            raise KeyboardInterrupt

    assert laboratory.run(spec, observer=Stop()).interrupted
    items = run_trial(tasks[0].request, torch.device("cpu"))
    next(items)  # milestone 1, from the store; the lease is held from here on
    path = laboratory.store.run(tasks[0].asked.run_key).path / "lease"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "attempt": held["attempt"] + 1}))
    with pytest.raises(StopIteration) as end:
        next(items)
    assert end.value.value.state == State.KILLED and laboratory.checkpoints() == before


def test_a_second_driver_is_told_who_holds_the_study(laboratory):
    """The first driver is another process that lives; it ends when its pipe is closed."""
    ready, say_ready = os.pipe()
    until, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        with claimed(laboratory.store, "tiny", print):
            os.write(say_ready, b"!")
            os.read(until, 1)
        os._exit(0)
    os.close(until)
    os.read(ready, 1)
    try:
        with pytest.raises(StoreError, match=rf"study 'tiny' is being run by process {child} on .+, since 2"):
            laboratory.run(ONE)
        assert laboratory.store.keys() == []
    finally:
        os.close(release)
        os.waitpid(child, 0)
    assert laboratory.run(ONE).runs == 1


def test_two_drivers_of_two_studies_may_share_a_store(laboratory):
    with claimed(laboratory.store, "other", print):
        assert laboratory.run(ONE).runs == 1


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StoreError, match="--store"):
        Store.open(file / "store")
