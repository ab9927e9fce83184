"""A printed table beside what a study measured: which runs answer it, their ranks, Kendall's τ, what is noise.

An evaluation has a place: its point on the training axes, its epoch and its sampling point. Evaluations whose places
differ in the table's axis alone answer the table. Where a study holds fewer rows so than in all, as a joint search
does, all evaluations at one epoch and sampling point stand in for them: other axes vary within a row then, and nothing
is said of noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np

from diffsearch.records import Evaluation, RunHistory, StudyHistory
from diffsearch.registry import dataset, sampler
from diffsearch.report.ranks import rankable
from diffsearch.scoring.statistics import WRONG, Summary, difference, holm, summarise
from diffsearch.space.axes import value_at
from diffsearch.space.metric_names import Scale, parse, scale_of
from diffsearch.space.published import EPOCHS, Published, Row, Table
from diffsearch.space.settings import SamplingPoint, canonical

Verdict: TypeAlias = Literal["held", "inside the noise", "reversed", ""]
Cell: TypeAlias = "tuple[RunHistory, Evaluation]"

NOT_RUN = "not run"
_DISTANCES = {"fd", "fd-infinity", "kd"}  # kinds whose orders may be compared with each other's
_PROCESS = "diffusion.noise_process"  # printed with its options where they matter
_MODEL = "model.kind"
_ANY = "folder"  # a data set that may hold any images
_KEYS = {"guidance": "guidance_weight"}  # fields of a sampling point that a study file names otherwise


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table."""

    row: Row
    measured: Summary | None  # over the runs that answer it; None: none has a score
    asked: int  # runs that were to answer it
    scores: tuple[float, ...] = ()  # of those runs
    state: str = ""  # why there is no score: "not run", "diverged", ...
    ranks: tuple[int, int] | None = None  # published and measured, among the rows that have both; 1 is the best


@dataclass(frozen=True, slots=True)
class Correlation:
    """Kendall's tau-b, 1 where two orders agree and -1 where they are opposite; p of no association; n rows."""

    tau: float
    p: float
    n: int


@dataclass(frozen=True, slots=True)
class Order:
    """Two rows in their published order, and whether the measured repeats tell them apart, and which way round."""

    better: Row
    worse: Row
    verdict: Verdict  # "" without repeats, or where the two were printed alike


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table and a study's answer to it.

    Args:
        metric: of this study, what its column holds.
        lines: in the table's order.
        mixed: other axes vary within a row.
        ours: path → this study's values of what was printed of the runs; several where they vary.
        epoch: at which the rows are compared; None where the epochs are the axis, or nothing was measured.
        tau: None with fewer than two rows that have both scores, or where a column is all alike.
        orders: neighbours in the published order.
        taken: the authors' choice, as the better, and the best of the other rows; None where they named none.
    """

    table: Table
    metric: str
    lines: tuple[Line, ...]
    mixed: bool
    ours: Mapping[str, tuple[Any, ...]]
    epoch: int | None
    tau: Correlation | None
    orders: tuple[Order, ...]
    taken: Order | None


def compare(history: StudyHistory, published: Published, table: Table) -> Comparison:
    """A table of a report and the same rows as this study measured them."""
    printed = published.of(table)
    metric = _stands_for(history, table)
    cells = [(run, sheet) for run, sheets in rankable(history) for sheet in sheets if metric in sheet.scores]
    group, mixed = _answer(cells, table, printed)
    lines = [_line(history, table, row, group, metric, mixed) for row in table.rows]
    signs = _sign(table.metric), _sign(metric)
    measured = {} if mixed else {_key(line.row): line.scores for line in lines}
    orders, taken = _orders(table, measured, signs, scale_of(metric))
    return Comparison(
        table=table,
        metric=metric,
        lines=_ranked(lines, signs),
        mixed=mixed,
        ours={path: _distinct(group, path) for path in printed},
        epoch=group[0][1].epoch if group and table.axis != EPOCHS else None,
        tau=correlation([(line.row.score, line.measured.mean) for line in lines if line.measured], signs),
        orders=orders,
        taken=taken,
    )


def correlation(pairs: Sequence[tuple[float, float]], signs: tuple[float, float] = (1.0, 1.0)) -> Correlation | None:
    """Kendall's tau-b of pairs of scores; `signs` are 1 where low ones are good, -1 where high ones are."""
    if len({score for score, _ in pairs}) < 2 or len({score for _, score in pairs}) < 2:
        return None
    from scipy import stats  # here: it takes a second, and few studies have published scores beside them

    found = stats.kendalltau([signs[0] * score for score, _ in pairs], [signs[1] * score for _, score in pairs])
    return Correlation(float(found.statistic), float(found.pvalue), len(pairs))


def repeated(published: Published) -> list[tuple[float, ...]]:
    """Scores of one metric that were printed for one and the same settings, in several tables; each as often as there.

    They show how far apart two scores of nothing but chance lay with the authors themselves.
    """
    found: dict[str, list[float]] = {}
    for table in published.tables:
        for row in table.rows:
            settings = {**published.of(table), **({table.axis: row.value} if table.axis else {})}
            found.setdefault(canonical({"metric": table.metric, **settings}), []).append(row.score)
    return [tuple(scores) for scores in found.values() if len(scores) > 1]


def stranger(history: StudyHistory, published: Published, table: Table) -> str:
    """Why a table doesn't speak of this study, e.g. "of the network dense"; empty where it does."""
    printed = published.of(table)
    kinds = {run.settings.model.name for run in history.runs}
    asked = {printed[_MODEL]} if _MODEL in printed else kinds
    if table.axis == _MODEL:
        asked = {row.value for row in table.rows}
    if kinds and not asked & kinds:
        return f"of the network {' or '.join(sorted(asked))}"
    sets = {run.settings.dataset.name for run in history.runs}
    images = printed.get("data.dataset")
    if images is not None and _ANY not in sets and sets and _family(images) not in map(_family, sets):
        return f"of {images}"
    return ""


def _stands_for(history: StudyHistory, table: Table) -> str:
    """The study's metric for a printed one: that one, one of its kind, a distance for a distance, or the objective."""
    printed = parse(table.metric).kind
    near = sorted(history.metrics, key=lambda metric: metric != history.objective)
    alike = [metric for metric in near if parse(metric).kind == printed]
    distances = [metric for metric in near if {printed, parse(metric).kind} <= _DISTANCES]
    return table.metric if table.metric in near else [*alike, *distances, history.objective][0]


def _family(name: str) -> str:
    """Data sets of one family hold the same kind of images."""
    return str(dataset.member(name).traits.get("reference_family") or name)


# --- which evaluations answer a table -----------------------------------------------------------------------------


def _answer(cells: Sequence[Cell], table: Table, printed: Mapping[str, Any]) -> tuple[list[Cell], bool]:
    """The evaluations that answer a table, and whether other axes vary among those of one row."""
    rows = {_key(row) for row in table.rows}

    def quality(group: Sequence[Cell]) -> tuple[int, int, int, int]:
        """Rows held; printed settings in common; epochs; and the first that was asked for."""
        run, sheet = group[0]
        held = {canonical(value_of(cell, table.axis)) for cell in group} & rows
        alike = sum(canonical(value_of(group[0], path)) == canonical(value) for path, value in printed.items())
        return len(held), alike, sheet.epoch, -run.order

    def best(place: Callable[[Cell], dict[str, Any]]) -> list[Cell]:
        groups: dict[str, list[Cell]] = {}
        for cell in cells:
            where = {path: value for path, value in place(cell).items() if path != table.axis}
            groups.setdefault(canonical(where), []).append(cell)
        return max(groups.values(), key=quality, default=[])

    alone = best(lambda cell: {**cell[0].point, **_drawn(cell[1])})
    mixed = best(lambda cell: _drawn(cell[1]))
    if table.axis is not None and alone and quality(mixed)[0] > quality(alone)[0]:
        return mixed, True
    return alone, False


def _drawn(sheet: Evaluation) -> dict[str, Any]:
    """When and how the samples of an evaluation were drawn: path → value."""
    return {EPOCHS: sheet.epoch, **_sampling(sheet.sampling)}


def _sampling(point: SamplingPoint) -> dict[str, Any]:
    options = sampler.member(point.sampler.name).options()
    own = {name: point.sampler.kwargs.get(name, option.default) for name, option in options.items()}
    fields = {field.name: getattr(point, field.name) for field in dataclasses.fields(point)}
    named = {_KEYS.get(name, name): value for name, value in fields.items()}
    return {f"sampling.{key}": value for key, value in {**own, **named, "sampler": point.sampler.name}.items()}


def value_of(cell: Cell, path: str | None) -> Any:
    """What an evaluation has at a path: of how it was drawn, or of its run; None where it has nothing there."""
    run, sheet = cell
    if path is None:
        return None
    return _drawn(sheet).get(path) if path.startswith("sampling.") or path == EPOCHS else _trained(run, path)


def _trained(run: RunHistory, path: str) -> Any:
    if path in run.point:
        return run.point[path]
    process = run.settings.noise_process
    return process if path == _PROCESS and process.options else value_at(run.settings, path)


def _distinct(group: Sequence[Cell], path: str) -> tuple[Any, ...]:
    return tuple({canonical(value): value for value in (value_of(cell, path) for cell in group)}.values())


def _key(row: Row) -> str:
    return canonical(row.value)


# --- rows ---------------------------------------------------------------------------------------------------------


def _line(history: StudyHistory, table: Table, row: Row, group: Sequence[Cell], metric: str, mixed: bool) -> Line:
    own = {
        run.key: sheet for run, sheet in reversed(group) if canonical(value_of((run, sheet), table.axis)) == _key(row)
    }
    asked = [run for run in history.runs if run.stage == "search" and _was_to_answer(history, run, table, row)]
    if group and not mixed:
        asked = [run for run in asked if _others(run, table) == _others(group[0][0], table)]
    if own:
        scores = tuple(sheet.scores[metric].value for sheet in own.values())
        return Line(row, summarise(scores, scale_of(metric)), len(asked), scores)
    failed = [str(run.outcome.state) for run in asked if not run.outcome.ok]
    return Line(row, None, len(asked), state=failed[0] if failed else "no score there" if asked else NOT_RUN)


def _was_to_answer(history: StudyHistory, run: RunHistory, table: Table, row: Row) -> bool:
    """Whether the study asked a run for that value."""
    if table.axis is None:
        return True
    if table.axis == EPOCHS:
        return row.value in history.milestones
    if table.axis.startswith("sampling."):
        return any(canonical(value_of((run, sheet), table.axis)) == _key(row) for sheet in run.evaluations)
    return canonical(_trained(run, table.axis)) == _key(row)


def _others(run: RunHistory, table: Table) -> str:
    return canonical({path: value for path, value in run.point.items() if path != table.axis})


def _ranked(lines: Sequence[Line], signs: tuple[float, float]) -> tuple[Line, ...]:
    """The lines with both ranks, where both scores are there; equal scores share the better rank."""
    both = [(line, line.measured.mean) for line in lines if line.measured is not None]
    columns = [[signs[0] * line.row.score for line, _ in both], [signs[1] * mean for _, mean in both]]
    ranks = [[1 + sum(other < score for other in column) for score in column] for column in columns]
    of = {_key(line.row): pair for (line, _), pair in zip(both, zip(*ranks, strict=True), strict=True)}
    return tuple(replace(line, ranks=of.get(_key(line.row))) for line in lines)


def _orders(
    table: Table, measured: Mapping[str, Sequence[float]], signs: tuple[float, float], scale: Scale
) -> tuple[tuple[Order, ...], Order | None]:
    """Neighbours in the published order, and the authors' choice before the best of the others.

    The print chose these comparisons, not our scores: Welch's tests, corrected by Holm's method for how many they are.
    """
    best_first = sorted(table.rows, key=lambda row: signs[0] * row.score)
    chosen = [row for row in best_first if table.axis and canonical(table.winner) == _key(row)]
    others = [row for row in best_first if row not in chosen]
    pairs = [*pairwise(best_first), *([(chosen[0], others[0])] if chosen and others else [])]
    tests = {tuple(sorted((_key(a), _key(b)))): (a, b) for a, b in pairs if a.score != b.score}
    sides = [(measured.get(_key(a), ()), measured.get(_key(b), ())) for a, b in tests.values()]
    found = [difference(a, b, scale) for a, b in sides]
    corrected = holm(np.array([math.nan if each is None else each.p for each in found], dtype=np.float64))
    p = dict(zip(tests, corrected, strict=True))

    def order(better: Row, worse: Row) -> Order:
        a, b = (measured.get(_key(row), ()) for row in (better, worse))
        alike = p.get(tuple(sorted((_key(better), _key(worse)))), math.nan)
        if math.isnan(alike):
            return Order(better, worse, "")
        if alike >= WRONG:
            return Order(better, worse, "inside the noise")
        means = [signs[1] * summarise(scores, scale).mean for scores in (a, b)]
        return Order(better, worse, "held" if means[0] < means[1] else "reversed")

    orders = [order(better, worse) for better, worse in pairs]
    neighbours = tuple(orders[: len(best_first) - 1])
    return neighbours, orders[-1] if chosen and others else None


def _sign(metric: str) -> float:
    """1 where low scores are good, -1 where high ones are."""
    return 1.0 if parse(metric).direction == "min" else -1.0
