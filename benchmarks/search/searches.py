"""The searches that docs/search_quality.md compares, replayed and kept: a second call reads what the first wrote."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

from diffsearch import registry
from diffsearch.files import replace_file
from diffsearch.search.sequential import EPOCHS
from diffsearch.space.axes import ends
from diffsearch.study.conductor import Conductor
from diffsearch.study.recording import Recording
from diffsearch.study.replay import Replays, study
from diffsearch.study.simulated import Costs, Moment, Reuse, Simulation

GP = "gp" if "gp" in registry.algorithm else "GPSampler"
RULES = ("none", "asha", "curves")
ALGORITHMS = ("sequential", "random", "grid", "tpe", "gp")


@dataclass(frozen=True, slots=True)
class Search:
    """One way to search the table."""

    algorithm: str
    stopping: str
    reuse: Reuse = "keys"
    workers: int = 1
    trials: int | None = None  # None: every point of the table
    at: str = "milestones"  # where the sampling sweep is scored

    @property
    def label(self) -> str:
        rule = "" if self.stopping == "none" else f" + {self.stopping}"
        return self.algorithm + rule + ("" if self.at == "milestones" else f", sweep at the {self.at}")


@dataclass(frozen=True, slots=True)
class Traces:
    """What came of one search, a trace a seed, and how long a replay took here."""

    search: Search
    traces: list[list[Moment]]
    seconds: float  # of this machine's time, a replay


@dataclass(frozen=True)
class Bench:
    """A table, the seeds that search it, and where their traces are kept."""

    table: Path
    cache: Path
    seeds: int = 30
    jobs: int = 1

    @cached_property
    def recording(self) -> Recording:
        return Recording.read(self.table)

    def traces(self, search: Search, note: Callable[[str], object] = lambda text: None) -> Traces:
        """The traces of a search: from the cache, or replayed now.

        One worker hears the same scores in the same order with keys and without, so one replay tells both costs: each
        evaluation's by itself, and sequential's as its authors did it (`protocol_s`).
        """
        if search.reuse == "none" and search.workers == 1:
            kept = self.traces(replace(search, reuse="keys"), note)
            priced = [[m._replace(simulated_s=m.alone_s, worker_s=m.alone_s) for m in trace] for trace in kept.traces]
            return Traces(search, priced, kept.seconds)
        content = hashlib.sha256(self.table.read_bytes()).hexdigest()[:12]
        what = hashlib.sha256(json.dumps([asdict(search), self.seeds, Moment._fields]).encode()).hexdigest()[:12]
        file = self.cache / content / f"{search.algorithm}-{search.stopping}-{what}.json"
        if not file.exists():
            note(f"{search.label}, reuse {search.reuse}, {search.workers} workers, {self.seeds} seeds")
            traces, seconds = self._replay(search)
            replace_file(file, json.dumps({"search": asdict(search), "seconds": seconds, "traces": traces}).encode())
        plain = json.loads(file.read_bytes())
        return Traces(search, [[Moment(*moment) for moment in trace] for trace in plain["traces"]], plain["seconds"])

    def _replay(self, search: Search) -> tuple[list[list[Moment]], float]:
        if self.jobs == 1:
            replayed = [replay(self.recording, search, seed) for seed in range(self.seeds)]
        else:
            with ProcessPoolExecutor(self.jobs, get_context("spawn"), _take, (self.table,)) as pool:
                replayed = list(pool.map(_replay, [search] * self.seeds, range(self.seeds)))
        return [trace for trace, _ in replayed], sum(seconds for _, seconds in replayed) / len(replayed)


def replay(recording: Recording, search: Search, seed: int) -> tuple[list[Moment], float]:
    """One trace, and the seconds that it took here."""
    told = [
        "budget={}",
        f"sampling.at={search.at}",
        f"search.algorithm={_algorithm(recording, search.algorithm, seed)}",
        f"search.stopping={search.stopping}",
    ]
    if search.trials is not None:
        told.append(f"search.runs={search.trials}")
    replays = Replays(recording, study(recording, told), search.workers, Costs(reuse=search.reuse))
    began = time.process_time()
    simulation, conductor = replays.begin(seed)
    trace = simulation.run(conductor)
    took = time.process_time() - began
    if search.algorithm == "sequential":
        share = protocol_s(simulation, conductor) / trace[-1].worker_s
        trace = [moment._replace(alone_s=share * moment.worker_s) for moment in trace]
    return trace, took


def protocol_s(simulation: Simulation, conductor: Conductor) -> float:
    """What a coordinate search costs whose authors train each row of each table once, by itself, and score it once."""
    search, known = conductor.proposals.sequential, conductor.proposals.answers.scores
    assert search is not None
    total = 0.0
    for path, rows in search.tables(known):
        for proposal in rows:
            asked = conductor.requests.search_run(proposal.point, 0, proposal.epochs)
            recorded = simulation.source.run(asked)
            for epoch in asked.milestones if path == EPOCHS else asked.milestones[-1:]:
                found = recorded.evaluations.get((epoch, asked.points[0]))
                until = (
                    epoch if found is not None or recorded.diverged is None else recorded.diverged.details["epoch"] - 1
                )
                total += simulation.costs.overhead_s + recorded.seconds(until)
                total += found.sampling_s + found.scoring_s if found is not None else 0.0
    return total


def _algorithm(recording: Recording, name: str, seed: int) -> str:
    """In YAML. The report's coordinate search: its order of axes, from a start that is drawn for each seed."""
    if name != "sequential":
        return GP if name == "gp" else name
    spec = study(recording)
    drawn = random.Random(seed)
    start: dict[str, Any] = {axis.path: drawn.choice(ends(axis)) for axis in spec.axes}
    start["training.epochs"] = spec.milestones[-2] if len(spec.milestones) > 1 else spec.milestones[-1]
    first = [path for path in ("training.batch_size", "training.epochs", "training.loss") if path in start]
    last = [path for path in ("diffusion.steps", "diffusion.noise_process") if path in start]
    order = [*first, *(path for path in start if path not in {*first, *last}), *last]
    plain = {"name": "sequential", "order": order, "start": start}
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).strip()


def every(trials: int, gp_trials: int) -> list[Search]:
    """Each algorithm under each rule, with keys and without; all but grid and sequential for so many trials.

    Some with the sweep at the last milestone alone, which halves what the first one costs.
    """
    found = []
    for algorithm in ALGORITHMS:
        limit = {"random": trials, "tpe": trials, "gp": gp_trials}.get(algorithm)
        rules: tuple[str, ...] = RULES
        if algorithm == "sequential":
            rules = ("none",)  # it compares an axis's values at one epoch
        elif algorithm == "gp":
            rules = ("none", "asha")  # each rule is minutes more of the machine
        found += [Search(algorithm, rule, reuse, 1, limit) for rule in rules for reuse in _REUSES]
        if algorithm in ("random", "tpe"):
            found += [Search(algorithm, rule, "keys", 1, limit, at="last") for rule in ("asha", "curves")]
    return found


def scaled(search: Search, workers: Sequence[int]) -> list[Search]:
    """The same search on other numbers of workers."""
    return [replace(search, workers=count) for count in workers]


_REUSES: tuple[Reuse, ...] = ("keys", "none")
_table: list[Recording] = []  # of a process of its own


def _take(table: Path) -> None:
    _table[:] = [Recording.read(table)]


def _replay(search: Search, seed: int) -> tuple[list[Moment], float]:
    return replay(_table[0], search, seed)
