"""How many epochs keys save: the rows that a study asks for, each trained by itself, against what it executes.

Counted by the code that decides and plans real studies (conductor, proposals, keys), which is answered with made-up
scores here: no number below depends on a table, and only where a rule stops runs does it depend on the scores at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffsearch.records import EpochRecord, Evaluation, Score
from diffsearch.space.axes import ends
from diffsearch.space.load import load
from diffsearch.space.metric_names import parse
from diffsearch.space.settings import SamplingPoint, StudySpec
from diffsearch.study.conductor import Conductor
from diffsearch.study.journal import SearchJournal
from diffsearch.study.ledger import Asked, Ledger
from diffsearch.study.recording import RecordedRun
from diffsearch.study.requests import Requests
from diffsearch.study.simulated import Costs, Reuse, SimulatedStore, Simulation

ROOT = Path(__file__).resolve().parents[2]
FULL = ROOT / "search_spaces" / "mnist_unet_full.yaml"
REPORT = ROOT / "experiments" / "mnist_sequential" / "study.yaml"


@dataclass(frozen=True, slots=True)
class Count:
    """Epochs of one study."""

    what: str
    alone: int  # each row a training of its own
    executed: int

    @property
    def factor(self) -> float:
        return self.alone / self.executed


@dataclass(frozen=True, slots=True)
class MadeUp:
    """Curves that fall as 1/sqrt(epoch), each from a height of its own, up or down by a tenth at each milestone."""

    objective: str

    def run(self, asked: Asked) -> RecordedRun:
        sign = 1 if parse(self.objective).direction == "min" else -1
        epochs = tuple(EpochRecord(epoch, 1.0, epoch, 1.0, float(epoch), 0.0) for epoch in asked.milestones)
        found = {}
        for epoch in asked.milestones:
            for point in asked.points:
                value = (
                    sign * (1 + _share(asked.run_key)) * (0.9 + 0.2 * _share(f"{asked.run_key}{epoch}")) / epoch**0.5
                )
                score = Score(value, asked.samples, "made up")
                key = f"{epoch}-{point}"
                found[epoch, point] = Evaluation(
                    key,
                    asked.run_key,
                    epoch,
                    point,
                    asked.samples,
                    asked.noise_seed,
                    {self.objective: score},
                    0,
                    0.0,
                    0.0,
                )
        return RecordedRun(asked.settings.seed, epochs, found, None)

    def truth(self, asked: Asked, epoch: int, point: SamplingPoint) -> float:
        return float("nan")


def _share(text: str) -> float:
    """Evenly spread over [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def executed(spec: StudySpec, reuse: Reuse) -> int:
    """Epochs that a study trains from an empty store, finalists included."""
    objective = spec.evaluation.objective
    spec = replace(spec, evaluation=replace(spec.evaluation, metrics=(objective,)))
    simulation = Simulation(MadeUp(objective), SimulatedStore(reuse), 1, Costs(0.0, reuse))
    requests = Requests(spec, simulation.store, "content", Ledger(None), "reuse", {}, {objective: "made up"})
    journal = SearchJournal(None, spec.name, spec.axes, spec.fixed, spec.search.algorithm, spec.seed)
    return simulation.run(Conductor(requests, journal, (1, 28, 28), lambda: 0.0))[-1].epochs


def rows_of_tables(spec: StudySpec) -> int:
    """Epochs of a coordinate search whose every table trains all of its rows, as its authors did it."""
    options = spec.search.algorithm.kwargs
    order, start = options["order"], options["start"]
    epochs, total = start["training.epochs"], 0
    for path in order:
        if path == "training.epochs":
            total += sum(spec.milestones)
            epochs = options["later_epochs"]
        else:
            total += epochs * len(ends(next(axis for axis in spec.axes if axis.path == path)))
    return total


def counts() -> Sequence[Count]:
    """The shipped space as it stands and in three variants, and the report's own protocol."""
    found = []
    tracks = "sampling.ema=[0, 10k, 50k, 200k]"
    for what, overrides in (
        ("`mnist_unet_full` as shipped", []),
        ("... without a stopping rule", ["search.stopping=none"]),
        ("... with its four EMA tracks scored at each milestone", [tracks]),
        ("... both", [tracks, "search.stopping=none"]),
    ):
        spec = load(FULL, overrides)
        found.append(Count(what, executed(spec, "none"), executed(spec, "keys")))
    report = load(REPORT, ["repeats=1"])
    found.append(
        Count(
            "the report's own protocol (`mnist_sequential`), one seed", rows_of_tables(report), executed(report, "keys")
        )
    )
    return found


def rows() -> list[tuple[str, str]]:
    return [(c.what, f"{c.alone:,} epochs alone, {c.executed:,} executed: {c.factor:.2f}×") for c in counts()]
