"""A study on a Ray cluster: the same rows as in one process, whatever happens to its nodes and to the adapters."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from diffsearch.errors import ConfigError, DiffsearchError
from diffsearch.records import State
from diffsearch.store import lease as leases
from diffsearch.study import facts, host, runner
from diffsearch.study.observer import Nobody
from diffsearch.trial import Trained

STUDY = {"training.loss": ["x0-l2", "v-l2", "epsilon-l2"], "search.finalists": {"top": 1, "repeats": 1}}

BROKEN_RULE = """
from diffsearch import registry

@registry.stopping_rule.register("broken-rule", needs_milestones=True)
def broken():
    def rule(rung):
        raise RuntimeError("the rule itself is broken")
    return rule
"""

SEES_GPUS = """
import os, ray
from pathlib import Path
from torch import nn
from diffsearch import registry

@registry.model.register("sees-gpus")
class Sees(nn.Module):
    def __init__(self, image_shape, steps, *, width: int = 1):
        super().__init__()
        self.layer = nn.Conv2d(image_shape[0], image_shape[0], 1)

    def forward(self, x, t):
        if x.device.type != "meta":
            note = Path({notes!r}) / f"{{os.getpid()}}-{{os.environ.get('CUDA_VISIBLE_DEVICES')}}"
            note.write_text(ray.get_runtime_context().get_node_id())
        return self.layer(x)
"""


class NodeKiller(Nobody):
    """Kills a node, as when its power fails, once a worker there has trained an epoch."""

    def __init__(self, store, node):
        self.store, self.killed = store, []
        [self.raylet] = (info.process for info in node.all_processes["raylet"])

    def heard(self, task, said):
        if isinstance(said, Trained) and not self.killed:
            holder = leases.read(self.store.run(task.asked.run_key).path / "lease")
            if psutil.Process(holder.pid).ppid() == self.raylet.pid:
                self.raylet.kill()
                os.kill(holder.pid, signal.SIGKILL)
                self.killed.append(task.asked.run_key)


@pytest.fixture(scope="module")
def gpu_cluster():
    """Two nodes with two pretended GPUs each."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        node = {"num_cpus": 2, "num_gpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        cluster.second = cluster.add_node(**{key: value for key, value in node.items() if key != "include_dashboard"})
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def test_on_a_cluster_of_gpus_each_run_sees_its_share_alone(laboratory, tmp_path, gpu_cluster):
    notes = tmp_path / "notes"
    notes.mkdir()
    file = tmp_path / "sees.py"
    file.write_text(SEES_GPUS.format(notes=str(notes)))
    changes = {
        "use": [str(file)],
        "model": {"kind": "sees-gpus"},
        "training.loss": ["x0-l2", "v-l2"],
        "training.epochs": [1],
        "resources": {"gpu": 1},
    }
    laboratory.run(changes, workers=None, address=gpu_cluster.address)
    seen = {path.name.split("-")[1] for path in notes.iterdir() if not path.name.startswith(f"{os.getpid()}-")}
    assert seen and seen <= {"0", "1"}
    assert laboratory.history().workers == 4  # two GPUs on each of two nodes
    assert {str(run.outcome.state) for run in laboratory.history().runs} == {"finished"}
    greedy = {**changes, "seed": 1, "resources": {"gpu": 3}}  # another seed: what the store has needs no GPU
    with pytest.raises(ConfigError, match=r"(?s)asks for 1 CPU and 3 GPU.+the largest node offers 2 CPU and 2 GPU"):
        laboratory.run(greedy, workers=None, address=gpu_cluster.address)
    assert Path(gpu_cluster.head_node.get_session_dir_path()).exists()  # somebody else's cluster is left as it was


def test_a_node_that_would_compute_something_else_is_refused(laboratory, gpu_cluster, monkeypatch):
    other = {**facts.environment(), "torch": "2.0.0", "device": "another"}
    monkeypatch.setattr(facts, "environment", lambda: other)
    with pytest.raises(DiffsearchError, match=r"node \S+: torch \S+ \(here 2\.0\.0\)\n.+constraints\.txt") as error:
        laboratory.run({"resources": {"gpu": 0}}, workers=None, address=gpu_cluster.address)
    assert "numpy" not in str(error.value)
    assert not any(run.epochs for run in laboratory.history().runs)


def test_an_error_in_an_adapter_halts_the_study_with_its_traceback(laboratory, tmp_path, gpu_cluster):
    file = tmp_path / "rules.py"
    file.write_text(BROKEN_RULE)
    changes = {"training.loss": "x0-l2", "resources": {"gpu": 0}}
    broken = {**changes, "use": [str(file)], "search.stopping": "broken-rule"}
    with pytest.raises(RuntimeError, match="the rule itself is broken") as error:
        laboratory.run(broken, workers=None, address=gpu_cluster.address)
    assert any("rules.py" in str(entry.path) for entry in error.traceback)
    [run] = laboratory.history().runs
    assert [evaluation.epoch for evaluation in run.evaluations] == [1]  # what was scored before it is there
    laboratory.run(changes)
    assert [epoch for _, epoch in laboratory.trained] in ([2], [])  # the worker may have been an epoch ahead
    assert [e.epoch for e in laboratory.history().runs[0].evaluations] == [1, 2]


def test_a_node_that_dies_costs_an_attempt_and_no_result(laboratory, new_laboratory, tmp_path, gpu_cluster):
    """The last on that cluster, which has one node left."""
    changes = {**STUDY, "resources": {"gpu": 2}}
    killer = NodeKiller(laboratory.store, gpu_cluster.second)
    laboratory.run(changes, workers=None, address=gpu_cluster.address, observer=killer)
    [killed] = killer.killed
    runs = {run.key: run for run in laboratory.history().runs}
    assert {str(run.outcome.state) for run in runs.values()} == {"finished"}
    assert {attempt.state for attempt in runs[killed].attempts} == {State.KILLED}
    here = new_laboratory(tmp_path / "here")
    here.run(changes)
    assert laboratory.table() == here.table() and laboratory.lines() == here.lines()


def test_a_worker_out_of_reach_is_dead_and_one_that_could_not_begin_is_not():
    from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

    assert runner.is_death(ActorDiedError()) and runner.is_death(ActorUnavailableError("socket closed", None))
    no_begin = RayTaskError("RunTrainable.__init__", "no such file", OSError("no such file"))
    assert not runner.is_death(ActorDiedError(no_begin))
    assert not runner.is_death(no_begin) and not runner.is_death(None)


def test_an_address_where_nothing_answers_is_an_error_of_one_line(laboratory):
    with pytest.raises(DiffsearchError, match=r"--address 127\.0\.0\.1:1: no Ray cluster answers there"):
        laboratory.run({}, workers=None, address="127.0.0.1:1")


def test_a_scheduler_of_rays_is_taken_by_its_name():
    from diffsearch.space.settings import Choice

    assert runner.foreign_scheduler(Choice.of("asha")) is None
    scheduler = runner.foreign_scheduler(Choice.of("MedianStoppingRule", min_samples_required=5))
    assert type(scheduler).__name__ == "MedianStoppingRule"
    with pytest.raises(DiffsearchError, match="no scheduler 'NoSuchScheduler'"):
        runner.foreign_scheduler(Choice.of("NoSuchScheduler"))
    with pytest.raises(DiffsearchError, match="MedianStoppingRule: "):
        runner.foreign_scheduler(Choice.of("MedianStoppingRule", no_such_argument=1))


def test_folders_of_dead_drivers_are_reaped_and_others_left(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "TEMP", str(tmp_path))
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    for name in (f"ds{dead}-abc", f"ds{os.getpid()}-abc", "dsomething", "ds12"):
        (tmp_path / name).mkdir()
    host.reap_folders()
    assert {path.name for path in tmp_path.iterdir()} == {f"ds{os.getpid()}-abc", "dsomething", "ds12"}
