"""How often the intervals, winners and limits that a report claims are wrong: docs/statistics.md; one minute."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.honesty import bias, coverage, figures, pairs, shapes, winners

SEED = 2026


def rows() -> list[tuple[str, str]]:
    """Every figure of docs/statistics.md; draws its pictures into docs/pictures/statistics/."""
    seeds = [np.random.default_rng([SEED, part]) for part in range(3)]
    measured = shapes.repeats()
    with threadpool_limits(1):  # small matrices: threads would but wait for each other
        covered = coverage.measure(seeds[0], measured)
        claimed = winners.measure(seeds[1], shapes.fit(shapes.of_kind(measured, "fd")))
        biased = bias.measure(seeds[2])
    figures.draw(covered, claimed, biased)
    return [
        *shapes.rows(measured),
        *coverage.rows(covered),
        *winners.rows(claimed),
        *pairs.rows(measured),
        *bias.rows(biased),
    ]
