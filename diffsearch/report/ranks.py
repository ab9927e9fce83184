"""What may be compared with what: runs that rank, configurations repeated over seeds, and the winner.

Three rules hold throughout. Only runs that finished or were stopped early rank. Only scores of one sample count and
one extractor are compared. Seeds of the same point are repeats, and only repeats have an interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from diffsearch.records import Evaluation, RunHistory, StudyHistory
from diffsearch.scoring.statistics import Summary, judge, summarise
from diffsearch.search import pareto
from diffsearch.search.earned import Judge
from diffsearch.space.metric_names import scale_of
from diffsearch.space.settings import SamplingPoint, canonical

Stage = Literal["search", "finalist"]
STAGES: tuple[Stage, ...] = ("finalist", "search")
Standing = Literal["winner", "tie", "loser", "alone"]
Ranked = tuple[RunHistory, tuple[Evaluation, ...]]


def point_key(run: RunHistory) -> str:
    """Equal for runs that differ in their seed alone."""
    return canonical(dict(run.point))


def sign(history: StudyHistory) -> float:
    """1 where low scores are good, -1 where high ones are: sign times score is to be made small."""
    return 1.0 if history.direction == "min" else -1.0


def best_sheet(history: StudyHistory, sheets: Iterable[Evaluation]) -> Evaluation:
    """The best of some evaluations, the earliest epoch among equals."""
    return min(sheets, key=lambda sheet: (sign(history) * sheet.scores[history.objective].value, sheet.epoch))


def rankable(history: StudyHistory, stage: Stage = "search") -> list[Ranked]:
    """The runs of a stage whose scores may be compared, with those evaluations of them that may.

    That is: the run finished or was stopped early; the evaluation holds the objective, at one sample count
    (`history.samples` in the search; the largest that occurs among finalists) and with the extractor used most there,
    and breaks no constraint.
    """
    good = [run for run in history.runs if run.stage == stage and run.outcome.ok]
    sheets = [sheet for run in good for sheet in run.evaluations if history.objective in sheet.scores]
    samples = history.samples if stage == "search" else max((sheet.samples for sheet in sheets), default=0)
    sheets = [sheet for sheet in sheets if sheet.samples == samples]
    extractors = Counter(sheet.scores[history.objective].extractor for sheet in sheets)
    extractor = extractors.most_common(1)[0][0] if extractors else ""
    wanted = {sheet.key for sheet in sheets if sheet.scores[history.objective].extractor == extractor}
    pairs = [(run, tuple(sheet for sheet in run.evaluations if sheet.key in wanted)) for run in good]
    if history.constraints:
        pairs = [(run, tuple(sheet for sheet in kept if not broken(history, run, sheet))) for run, kept in pairs]
    return [(run, kept) for run, kept in pairs if kept]


def broken(history: StudyHistory, run: RunHistory, sheet: Evaluation) -> str:
    """The first constraint that an evaluation breaks, in words; empty where all hold."""
    return Judge((), history.constraints).broken(sheet, run.epochs, run.parameters)


def screened(history: StudyHistory) -> StudyHistory:
    """The search of a study with a screen, as the screen scored it: a history with no full score in it.

    The history itself has the full scores alone, so that the two meet in no ranking.
    """
    screen = history.screen
    if screen is None:
        raise ValueError(f"study '{history.name}' has no screen")
    runs = tuple(
        replace(run, evaluations=run.screened, reused_evaluations=run.reused_screened, screened=(), reused_screened=0)
        for run in history.runs
        if run.stage == "search"
    )
    return replace(
        history,
        objective=screen.objective,
        direction=screen.direction,
        metrics=(screen.objective,),
        samples=screen.samples,
        runs=runs,
        screen=None,
    )


def searched(history: StudyHistory) -> StudyHistory:
    """What the search learned from: the screen's scores where there is one."""
    return history if history.screen is None else screened(history)


@dataclass(frozen=True, slots=True)
class Configuration:
    """One point of the training axes, repeated over seeds, at its best epoch and sampling point."""

    runs: tuple[RunHistory, ...]  # those whose scores count, one a seed, in the study's order
    sheets: tuple[Evaluation, ...]  # of each of `runs`, its evaluation at that epoch and sampling point
    scores: tuple[float, ...]
    summary: Summary
    epoch: int
    sampling: SamplingPoint
    candidates: int  # pairs of epoch and sampling point that the best was chosen from
    asked: int  # seeds that were asked for, failed and unfinished ones too
    standing: Standing = "alone"  # told apart from every other; not told apart from the best, or it; worse; no other
    p: float | None = None  # that it is as good as the best, corrected for all comparisons; None of the best itself

    @property
    def typical(self) -> int:
        """Index of the seed with the median score (the better of the two where n is even): not the luckiest one."""
        return sorted(range(len(self.scores)), key=lambda i: self.scores[i])[(len(self.scores) - 1) // 2]


def configurations(history: StudyHistory) -> list[Configuration]:
    """The finalists, best mean first; where a study has none, the points that its search repeated over seeds.

    None where there are several objectives: they have no order, see `fronts`.

    Epoch and sampling point are those with the best mean, among the pairs that the most seeds have.
    """
    stage: Stage = "finalist"
    if history.objectives:
        return []
    if not rankable(history, stage):
        stage = "search"
    repeats: dict[str, list[Ranked]] = {}
    for run, sheets in rankable(history, stage):
        repeats.setdefault(point_key(run), []).append((run, sheets))
    if stage == "search" and not any(len(members) > 1 for members in repeats.values()):
        return []
    asked = Counter(point_key(run) for run in history.runs if run.stage == stage)
    found = [_configuration(history, members, asked[key]) for key, members in repeats.items()]
    found.sort(key=lambda c: (sign(history) * c.summary.mean, c.runs[0].order))
    return _judged(history, found)


def _judged(history: StudyHistory, found: list[Configuration]) -> list[Configuration]:
    """Configurations, best mean first, each set against the first.

    Common noise doesn't pair them: of two networks it explains nothing of the scores' scatter (docs/statistics.md).
    """
    if len(found) < 2:
        return found
    verdict = judge([c.scores for c in found], history.direction, scale_of(history.objective))
    first: Standing = "winner" if verdict.wins else "tie"
    judged = [replace(found[0], standing=first)]
    for place, c in enumerate(found[1:], 1):
        standing: Standing = "tie" if place in verdict.ties else "loser"
        judged.append(replace(c, standing=standing, p=verdict.p[place]))
    return judged


def _configuration(history: StudyHistory, members: Sequence[Ranked], asked: int) -> Configuration:
    """The pair of epoch and sampling point with the best mean, among those that the most seeds have."""
    by_pair: dict[tuple[int, str], list[tuple[RunHistory, Evaluation]]] = {}
    for run, sheets in members:
        for sheet in sheets:
            pair = by_pair.setdefault((sheet.epoch, str(sheet.sampling)), [])
            if all(other.key != run.key for other, _ in pair):  # one score a seed, the first noise seed's
                pair.append((run, sheet))
    most = max(len(rows) for rows in by_pair.values())
    full = [rows for rows in by_pair.values() if len(rows) == most]
    scale = scale_of(history.objective)
    summaries = [summarise((sheet.scores[history.objective].value for _, sheet in rows), scale) for rows in full]
    best = min(range(len(full)), key=lambda i: (sign(history) * summaries[i].mean, full[i][0][1].epoch))
    sheets = tuple(sheet for _, sheet in full[best])
    return Configuration(
        runs=tuple(run for run, _ in full[best]),
        sheets=sheets,
        scores=tuple(sheet.scores[history.objective].value for sheet in sheets),
        summary=summaries[best],
        epoch=sheets[0].epoch,
        sampling=sheets[0].sampling,
        candidates=len(full),
        asked=asked,
    )


@dataclass(frozen=True, slots=True)
class Member:
    """One evaluation among those that several objectives compare."""

    run: RunHistory
    sheet: Evaluation
    values: tuple[float, ...]  # of each objective, as it was measured
    rank: int  # 0: on the front, nothing is better in one objective and as good in the others
    is_knee: bool


def members(history: StudyHistory) -> list[Member]:
    """Every evaluation of the search that may be compared, by rank and then by the first objective; one is the knee.

    [] where the study has one objective.
    """
    judge = Judge(history.objectives)
    found = [(run, sheet) for run, sheets in rankable(history) for sheet in sheets]
    earned = [judge.earned(sheet, run.epochs, run.parameters) for run, sheet in found]
    known = [(pair, each) for pair, each in zip(found, earned, strict=True) if each is not None]
    if not history.objectives or not known:
        return []
    values = pareto.array([each.values for _, each in known])
    ranks, knee = pareto.ranks(values), pareto.knee(values)
    order = sorted(range(len(known)), key=lambda index: (ranks[index], *values[index], index))
    return [
        Member(
            run=known[index][0][0],
            sheet=known[index][0][1],
            values=tuple(sign * value for sign, value in zip(judge.signs, known[index][1].values, strict=True)),
            rank=int(ranks[index]),
            is_knee=index == knee,
        )
        for index in order
    ]


Place = tuple[str, int, SamplingPoint]  # a point by its key, an epoch, a sampling point


def place_of(run: RunHistory, sheet: Evaluation) -> Place:
    return point_key(run), sheet.epoch, sheet.sampling


def repeats(history: StudyHistory) -> dict[Place, list[tuple[float, ...]]]:
    """What fresh seeds had at each place where they were scored: the objectives of each, as they were measured."""
    judge, found = Judge(history.objectives), dict[Place, list[tuple[float, ...]]]()
    for run, sheets in rankable(history, "finalist"):
        for sheet in sheets:
            earned = judge.earned(sheet, run.epochs, run.parameters)
            if earned is not None:
                values = tuple(sign * value for sign, value in zip(judge.signs, earned.values, strict=True))
                found.setdefault(place_of(run, sheet), []).append(values)
    return found


@dataclass(frozen=True, slots=True)
class Winner:
    """What a study found: a run and an evaluation that stand for it, and how sure that is."""

    run: RunHistory  # the typical seed of the winning configuration, or the one run with the best score
    sheet: Evaluation
    summary: Summary
    configuration: Configuration | None  # None: one run, so no interval and no claim
    others: tuple[Configuration, ...] = ()  # best mean first

    @property
    def second(self) -> Configuration | None:
        return self.others[0] if self.others else None

    @property
    def ties(self) -> tuple[Configuration, ...]:
        """Those that it isn't told apart from."""
        return tuple(c for c in self.others if c.standing == "tie")

    @property
    def apart(self) -> bool:
        """Whether it is told apart from every other configuration."""
        return bool(self.others) and not self.ties


def winner(history: StudyHistory) -> Winner | None:
    """The best configuration; where nothing was repeated, the best evaluation; None where nothing ranks.

    With several objectives the knee of their front stands for it.
    """
    found = configurations(history)
    if found:
        first = found[0]
        return Winner(first.runs[first.typical], first.sheets[first.typical], first.summary, first, tuple(found[1:]))
    ranked = rankable(history)
    if not ranked:
        return None
    if history.objectives and (traded := members(history)):
        chosen = next(member for member in traded if member.is_knee)
        score = chosen.sheet.scores[history.objective].value
        return Winner(chosen.run, chosen.sheet, summarise([score]), None)
    pairs = [(run, best_sheet(history, sheets)) for run, sheets in ranked]
    run, sheet = min(pairs, key=lambda p: (sign(history) * p[1].scores[history.objective].value, p[0].order))
    return Winner(run, sheet, summarise([sheet.scores[history.objective].value]), None)


def ranking_order(history: StudyHistory) -> list[RunHistory]:
    """The ranked runs of the search, best score first."""
    pairs = [(run, best_sheet(history, sheets)) for run, sheets in rankable(history)]
    pairs.sort(key=lambda pair: (sign(history) * pair[1].scores[history.objective].value, pair[0].order))
    return [run for run, _ in pairs]
