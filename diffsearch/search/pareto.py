"""Several objectives: what dominates what, how much of the front is one point's own, and where the front bends.

Values are (n, m) arrays, a row an evaluation, a column an objective, **lower is better** in each.

Distances and volumes are taken on the axes that a figure would have (`on_axes`): each objective from its least to its
greatest value, in its logarithm where values lie more than a factor of ten apart. So no unit weighs more than another,
and a network call at 5 weighs more than one at 500.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
DECADE = 10.0
MARGIN = 0.1  # of the reference point beyond the worst value, so that the ends of a front have volume too


def array(rows: Sequence[Sequence[float]], columns: int = 0) -> Floats:
    """(n, m), also where there is no row."""
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1 if len(rows) else columns)


def ranks(values: Floats) -> npt.NDArray[np.int64]:
    """Non-domination rank of each row (Deb et al. 2002): 0 on the front, 1 on the front of the rest, and so on: (n,).

    Equal rows don't dominate each other.
    """
    rank = np.full(len(values), -1, dtype=np.int64)
    at_most = (values[:, None, :] <= values[None, :, :]).all(axis=2)
    dominates = at_most & ~at_most.T  # [i, j]: i is nowhere worse than j, and somewhere better
    current = 0
    while (left := rank < 0).any():
        beaten = (dominates & left[:, None]).any(axis=0)
        rank[left & ~beaten] = current
        current += 1
    return rank


def front(values: Floats) -> npt.NDArray[np.int64]:
    """Indices of the rows that none dominates, ascending by the first objective."""
    on_it = np.flatnonzero(ranks(values) == 0)
    return on_it[np.lexsort(values[on_it].T[::-1])]


def on_axes(values: Floats) -> Floats:
    """Each objective as places on an axis: (n, m), 0 at the least value, 1 at the greatest; 0 where it has one."""
    columns = []
    for column in values.T:
        scaled = np.log(column) if has_decades(column) else column
        breadth = np.ptp(scaled)
        columns.append((scaled - scaled.min()) / breadth if breadth > 0 else np.zeros_like(scaled))
    return np.column_stack(columns) if columns else values


def has_decades(column: Floats) -> bool:
    """Whether a logarithmic axis fits: all positive, and more than a factor of ten apart."""
    return bool(len(column)) and column.min() > 0 and column.max() > DECADE * column.min()


def hypervolume(places: Floats) -> float:
    """Volume between the places and the corner at 1 + MARGIN that they dominate (Zitzler & Thiele 1999), by WFG."""
    from optuna._hypervolume import compute_hypervolume  # here: optuna takes a while to import, and reports read this

    return float(compute_hypervolume(places, np.full(places.shape[1], 1 + MARGIN))) if len(places) else 0.0


def contributions(places: Floats) -> Floats:
    """What the hypervolume loses without each place alone (Beume et al. 2007): (n,); 0 for one that is dominated."""
    whole, lost = hypervolume(places), np.zeros(len(places))
    for index in np.flatnonzero(ranks(places) == 0):
        lost[index] = max(0.0, whole - hypervolume(np.delete(places, index, axis=0)))
    return lost


def by_contribution(values: Floats) -> list[int]:
    """The rows of the front, the one that the hypervolume would miss most first; of equal rows the first alone."""
    _, first = np.unique(values, axis=0, return_index=True)
    distinct = np.sort(first)
    lost = contributions(on_axes(values[distinct]))
    on_it = np.flatnonzero(ranks(values[distinct]) == 0)
    return [int(distinct[index]) for index in sorted(on_it, key=lambda index: (-lost[index], distinct[index]))]


def telling(own: Floats, known: Floats) -> int:
    """Which of a run's evaluations stands for it: the index into `own` (k, m), given all others that are known (n, m).

    That of the best rank among all; of those the one that adds most to the hypervolume of what is known, the criterion
    by which SMS-EMOA keeps individuals (Beume et al. 2007); of equals the first. A sampler that is told one vector of
    each run so learns of the run's best trade-off that wasn't had already.
    """
    values = np.concatenate([own, known])
    places, rank = on_axes(values), ranks(values)[: len(own)]
    others = places[len(own) :]
    before = hypervolume(others)
    best = np.flatnonzero(rank == rank.min())
    gains = [hypervolume(np.concatenate([others, places[[index]]])) - before for index in best]
    if max(gains) <= 0:  # dominated: the one that dominates most by itself
        gains = [hypervolume(places[[index]]) for index in best]
    return int(best[int(np.argmax(gains))])


def order(values: Floats) -> list[int]:
    """All rows, best first: by rank, and within a rank as an ε-net spreads (Schmucker et al. 2021, MO-ASHA).

    A net begins with the least value of the first objective and goes on with the row that is farthest from all chosen
    ones (farthest-first traversal), so that any first part of the order covers the whole front.
    """
    places, rank, found = on_axes(values), ranks(values), []
    for current in range(int(rank.max()) + 1 if len(rank) else 0):
        left = sorted(np.flatnonzero(rank == current).tolist(), key=lambda index: (tuple(places[index]), index))
        chosen = [left.pop(0)]
        apart = np.linalg.norm(places - places[chosen[0]], axis=1)
        while left:
            farthest = max(left, key=lambda index: (apart[index], -left.index(index)))
            left.remove(farthest)
            chosen.append(farthest)
            apart = np.minimum(apart, np.linalg.norm(places - places[farthest], axis=1))
        found += chosen
    return found


def places_of_runs(rung: Sequence[Floats]) -> list[int]:
    """Place of each run among all at a milestone, 0 the best: that of its best evaluation in `order`.

    Args:
        rung: of each run the (k, m) values of its evaluations there.
    """
    owner = [run for run, values in enumerate(rung) for _ in values]
    place: dict[int, int] = {}
    for index in order(np.concatenate(list(rung))) if rung else ():
        place.setdefault(owner[index], len(place))
    return [place[run] for run in range(len(rung))]


def knee(values: Floats) -> int:
    """The row of the front where it bends most: the nearest to the corner of each objective's best, on the axes.

    The axes are those of the front alone; the distance to its ideal point is Euclidean (a compromise solution, Yu
    1973), which also holds for more than two objectives and where a front isn't convex.
    """
    on_it = front(values)
    places = on_axes(values[on_it])
    return int(on_it[int(np.argmin(np.linalg.norm(places, axis=1)))])
