"""What a study's results say about the next one: which values to keep, to fix, to add. Each rule gives its reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from diffsearch.records import RunHistory, StudyHistory
from diffsearch.report.axes import labels
from diffsearch.report.extend import extended, step
from diffsearch.report.importance import Importances
from diffsearch.report.phrases import number
from diffsearch.report.ranks import STAGES, Winner, best_sheet, point_key, rankable, sign
from diffsearch.report.surrogate import value_of
from diffsearch.space.settings import (
    Axis,
    SamplingPoint,
    StudySpec,
)

WRONG = 0.05  # of a test that finds what isn't there
UNDECIDED = 0.2  # p below which an axis isn't given up, though its values aren't told apart
LEAST_FALL = 0.1  # of one seed's last step, which has no test


@dataclass(frozen=True, slots=True)
class Finding:
    """A key of the study file and what it should become."""

    path: str
    value: Any  # typed as the space has it: a Domain, a single value, a tuple of milestones
    why: str


@dataclass(frozen=True)
class Evidence:
    """What is known when a study is over."""

    history: StudyHistory
    spec: StudySpec
    won: Winner
    found: Importances

    def matters(self, axis: Axis) -> str:
        """Why an axis matters, with its numbers; empty where that isn't shown."""
        share, chance = dict(self.found.shares).get(axis.path), self.found.chance.get(axis.path)
        if share is not None and chance is not None and share > chance:
            return f"importance {percent(share)}, shuffled scores give {percent(chance)}"
        p, epoch = self.apart(axis.path) or (1.0, 0)
        return f"its values differ at epoch {epoch}, Kruskal-Wallis p {p:.2g}" if p < WRONG else ""

    def idle(self, axis: Axis) -> str:
        """Why an axis matters no longer; empty where that isn't shown.

        Its importance and the upper end of its interval lie below what shuffled scores give, and its values aren't told
        apart.
        """
        share, chance = dict(self.found.shares).get(axis.path), self.found.chance.get(axis.path)
        interval = self.found.intervals.get(axis.path)
        if share is None or chance is None or interval is None or max(share, interval[1]) > chance:
            return ""
        tested = self.apart(axis.path)
        if tested is None or tested[0] < UNDECIDED:
            return ""
        return (
            f"importance {percent(share)} ({100 * interval[0]:.0f} to {percent(interval[1])}), shuffled scores give "
            f"{percent(chance)}; its values aren't told apart (Kruskal-Wallis p {tested[0]:.2g} at epoch {tested[1]})"
        )

    def apart(self, path: str) -> tuple[float, int] | None:
        """Smallest p of Kruskal & Wallis' 1952 test of an axis' values, doubled for two, and its epoch.

        At the first milestone, where every run still is, and at the last; a run counts with its best sampling point.
        None where fewer than two values have two runs each at either.
        """
        from scipy import stats

        label, results = labels(self.history, path), []
        epochs = sorted({self.history.milestones[0], self.history.milestones[-1]})
        for epoch in epochs:
            groups: dict[str, list[float]] = {}
            for run, sheets in rankable(self.history):
                here = [sheet for sheet in sheets if sheet.epoch == epoch]
                if here and run.key in label:
                    score = best_sheet(self.history, here).scores[self.history.objective].value
                    groups.setdefault(label[run.key], []).append(score)
            several = [scores for scores in groups.values() if len(scores) > 1]
            if len(several) > 1 and len({score for scores in several for score in scores}) > 1:
                results.append((float(stats.kruskal(*several).pvalue), epoch))
        return min(((min(1.0, len(results) * p), epoch) for p, epoch in results), default=None)

    @property
    def point(self) -> dict[str, Any]:
        """The winner's, typed as the space has it."""
        return {path: value_of(value) for path, value in self.won.run.point.items()}


# --- axes that are done, edges, milestones ----------------------------------------------------------------------------


def fixed(known: Evidence, whose: str = "the best run's") -> Iterator[Finding]:
    """Axes that matter no longer, at the winner's value."""
    needed = {path for axis in (*known.spec.axes, *known.spec.sampling_axes) for path, _ in axis.when}
    for axis in known.spec.axes:
        if axis.when or axis.path in needed or axis.path not in known.point:
            continue
        if reason := known.idle(axis):
            yield Finding(axis.path, known.point[axis.path], f"{axis.name} fixed at {whose}: {reason}.")


def edges(known: Evidence) -> Iterator[Finding]:
    """Axes that matter and whose best value is the outermost, one step of the same ratio further out."""
    for axis in known.spec.axes:
        reason = known.matters(axis)
        if reason and not axis.when and axis.path in known.point:
            found = extended(axis.domain, known.point[axis.path])
            if found is not None:
                yield Finding(axis.path, found[0], f"{axis.name}: {found[1]}. {sentence(reason)}")
    for axis in known.spec.sampling_axes:
        found = extended(axis.domain, _sampled(known.won.sheet.sampling, axis.path))
        if found is not None:
            yield Finding(axis.path, found[0], f"{axis.name}: {found[1]}. To sample so trains nothing.")


def _sampled(point: SamplingPoint, path: str) -> Any:
    """The value of a sampling axis at a sampling point; a word where that can't be extended."""
    known = {"steps": point.steps, "guidance_weight": point.guidance, "guidance_scale": 1 + point.guidance}
    return known.get(path.rpartition(".")[2])


def milestones(known: Evidence) -> Finding | None:
    """One more milestone, of the same ratio, where the winner still falls from the last but one to the last."""
    history, won = known.history, known.won
    if len(history.milestones) < 2 or won.sheet.epoch != history.milestones[-1]:
        return None
    before, last = history.milestones[-2:]
    pairs = _last_step(history, won.run, str(won.sheet.sampling), before, last)
    if not pairs:
        return None
    means = [math.fsum(column) / len(pairs) for column in zip(*pairs, strict=True)]
    logarithmic = min(min(pair) for pair in pairs) > 0
    falls = [sign(history) * (math.log(b / a) if logarithmic else b - a) for a, b in pairs]
    if len(falls) > 1:
        from scipy import stats

        p = float(stats.ttest_1samp(falls, 0, alternative="less").pvalue) if len(set(falls)) > 1 else 1.0
        if p >= WRONG:
            return None
        seeds = f"{len(falls)} seeds, paired t test p {p:.2g}"
    elif falls[0] > -(LEAST_FALL if logarithmic else LEAST_FALL * abs(pairs[0][0])):
        return None
    else:
        seeds = "one seed, so not tested"
    new = int(step((before, last)) or 2 * last)
    way = "fell" if history.direction == "min" else "rose"
    why = f"epochs: {new} added, as from epoch {before} to {last} the best run's {history.objective} still {way}, "
    why += (
        f"{number(means[0])} to {number(means[1])} ({seeds}). A run that gets there trains {new - last:,} epochs more"
    )
    if known.won.run.settings.training.horizon is not None:
        why += "; its schedule depends on the last epoch, so none of it is in the store"
    return Finding("training.epochs", (*history.milestones, new), f"{why}.")


def _last_step(
    history: StudyHistory, run: RunHistory, sampling: str, before: int, last: int
) -> list[tuple[float, float]]:
    """(score before, score at the last milestone) of each seed of a point.

    Those of the finalists, sampled so, if they have both; else the search's, sampled as is best.
    """
    for stage in STAGES:
        found = []
        for other, sheets in rankable(history, stage):
            alike = [s for s in sheets if stage == "search" or str(s.sampling) == sampling]
            both = [[s for s in alike if s.epoch == epoch] for epoch in (before, last)]
            if point_key(other) == point_key(run) and all(both):
                first, second = (best_sheet(history, there).scores[history.objective].value for there in both)
                found.append((first, second))
        if found:
            return found
    return []


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
