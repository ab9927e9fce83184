"""What a proposal costs in the driver against the length of the history: median of five asks, processor time."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from diffsearch.search.sequential import Proposal
from diffsearch.space.settings import Axis, Choice, Choices, LogUniform, Point, Uniform
from diffsearch.study.journal import SearchJournal

AXES = (
    Axis("model.channels", Choices(((8, 16, 32), (16, 32, 64)))),
    Axis("diffusion.steps", Choices((5, 10, 15))),
    Axis("diffusion.noise_process", Choices(("cosine", "linear-alpha-bar", "linear-x", "linear-noise"))),
    Axis("training.loss", Choices(("x0-l2", "v-l2", "x-prev-l2", "mu-tilde-l2", "mu-tilde-l1", "epsilon-l2"))),
    Axis("training.batch_size", Choices((32, 64, 128, 256))),
    Axis("training.learning_rate", LogUniform(3e-4, 3e-3)),
    Axis("training.weight_decay", Uniform(0.0, 0.1)),
)
ALGORITHMS = ("random", "tpe", "gp", "nsga2")
LENGTHS = (50, 200, 500)
ASKS = 5


def rows() -> Iterator[tuple[str, str]]:
    for name in ALGORITHMS:
        costs = ", ".join(f"{ask_ms(name, length):,.0f} ms at {length} trials" for length in LENGTHS)
        yield f"{name}, seven axes", costs


def ask_ms(name: str, length: int) -> float:
    """Of a proposal after `length` told trials, the process's first ask and its imports aside."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        drawn = SearchJournal(Path(folder), "drawn", AXES, {}, Choice.of("random"), seed=0)
        asks = SearchJournal(Path(folder), name, AXES, {}, Choice.of(name), seed=0)
        for _ in range(length):
            point = drawn.ask().proposal.point
            asks.tell(asks.ask_for(Proposal(point)).number, {1: _score(point)}, stopped=False)
        taken = []
        for _ in range(ASKS + 1):
            began = time.process_time()
            trial = asks.ask()
            taken.append(1000 * (time.process_time() - began))
            asks.tell(trial.number, {1: _score(trial.proposal.point)}, stopped=False)
    return statistics.median(taken[1:])


def _score(point: Point) -> float:
    """A smooth stand-in for a Fréchet distance; nothing is trained."""
    return 100 * abs(math.log10(point["training.learning_rate"]) + 3) + len(str(point["training.loss"]))
