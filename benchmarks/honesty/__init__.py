"""How often the intervals, winners and limits that a report claims are wrong: docs/statistics.md; one minute."""

from __future__ import annotations

import numpy as np

from benchmarks.honesty import bias, coverage, figures, pairs, shapes, winners

SEED = 2026


def rows() -> list[tuple[str, str]]:
    """Every figure of docs/statistics.md; draws its pictures into docs/pictures/statistics/."""
    rng = np.random.default_rng(SEED)
    measured = shapes.repeats()
    covered = coverage.measure(rng, measured)
    claimed = winners.measure(rng, shapes.fit(shapes.of_kind(measured, "fd")))
    biased = bias.measure(rng)
    figures.draw(covered, claimed, biased)
    return [
        *shapes.rows(measured),
        *coverage.rows(covered),
        *winners.rows(claimed),
        *pairs.rows(measured),
        *bias.rows(biased),
    ]
