"""What sampling gave: every sampling point beside the base point, and the share of the gain that needed no training.

The base point is the first value of each sampling axis. Two sampling points are compared on the same checkpoints, from
the same noise; a configuration's gain from there is then the sampling's alone, as no weight was changed for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import pandas as pd

from diffsearch.records import Evaluation, RunHistory, State, StudyHistory
from diffsearch.report.blocks import lines, table
from diffsearch.report.phrases import bracket, change, estimate, maybe, number, several
from diffsearch.report.ranks import Ranked, Stage, point_key, rankable, searched, sign, winner
from diffsearch.scoring.statistics import Summary, difference, summarise
from diffsearch.space.metric_names import Scale, scale_of
from diffsearch.space.settings import SamplingPoint

EDM = (
    "For comparison: a better sampler alone took a trained ImageNet-64 network from FID 2.07 to 1.55, and training it "
    "anew to 1.36 (Karras et al. 2022): 73 % of the drop, 69 % on the log scale."
)
_SCREENED = "the search was screened, at the base point alone, and finalists are scored in full"


# --- sampling points ------------------------------------------------------------------------------------------------


def sampling_points(history: StudyHistory, stage: Stage = "search") -> pd.DataFrame:
    """One row a sampling point, over one checkpoint a run: the deepest of those that were sampled in the most ways.

    Returns:
        sampling, calls (of the network, a sample), n (runs that have it), best, mean, low, high (its 95 % interval);
        and against the base point on the same checkpoints, run by run: `against` (a factor where the objective's scale
        is `log`, else a difference) with its paired interval `against_low` and `against_high`. The base point is first.
    """
    scale = scale_of(history.objective)
    scores: dict[str, list[tuple[float, float]]] = {}  # (base point's, its own), a run each
    calls: dict[str, list[float]] = {}
    for _, sheets in rankable(history, stage):
        here = _most_swept(sheets)
        for sheet in here:
            pair = (here[0].scores[history.objective].value, sheet.scores[history.objective].value)
            scores.setdefault(str(sheet.sampling), []).append(pair)
            calls.setdefault(str(sheet.sampling), []).append(sheet.network_calls / sheet.samples)
    rows = []
    for place, (text, pairs) in enumerate(scores.items()):
        base, own = ([pair[side] for pair in pairs] for side in (0, 1))
        summary, found = summarise(own, scale), difference(base, own, scale, paired=True)
        low, high = summary.interval or (None, None)
        best = min(own, key=lambda value: sign(history) * value)
        against: tuple[float | None, ...] = (None, None, None)
        if place:
            against = (found.value, *found.interval) if found else (_apart(base, own, scale), None, None)
        rows.append((text, summarise(calls[text]).mean, summary.n, best, summary.mean, low, high, *against))
    columns = ["sampling", "calls", "n", "best", "mean", "low", "high", "against", "against_low", "against_high"]
    return pd.DataFrame(rows, columns=columns)


def _apart(base: Sequence[float], own: Sequence[float], scale: Scale) -> float:
    """As `difference`, where nothing can be tested: of one run, or of runs that are all alike."""
    if scale == "log" and min(*base, *own) > 0:
        return summarise((b / a for a, b in zip(base, own, strict=True)), "log").mean
    return summarise(b - a for a, b in zip(base, own, strict=True)).mean


def _most_swept(sheets: Sequence[Evaluation]) -> list[Evaluation]:
    """Those of the deepest epoch among those with the most sampling points, the base point first."""
    by_epoch: dict[int, list[Evaluation]] = {}
    for sheet in sheets:
        by_epoch.setdefault(sheet.epoch, []).append(sheet)
    return max(by_epoch.items(), key=lambda pair: (len(pair[1]), pair[0]))[1]


# --- the gain without training --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gain:
    """From a start to the winner, in factors of the score."""

    start: RunHistory  # the first run of the search that came to its last milestone
    start_score: float  # there, at its base point
    median_score: float  # the same of all such runs, the median
    runs: int  # such runs
    base_score: float  # the winner's network at its base point, at the start's number of samples
    base: SamplingPoint
    chosen: SamplingPoint
    sampling: Summary  # by what factor the chosen point is better on the winner's own networks, over its seeds
    samples: tuple[int, int]  # images scored: of start and base, of the gain by sampling
    candidates: int  # sampling points that the chosen one was chosen from
    direction: float  # 1 where low scores are good

    def total(self, start_score: float | None = None) -> float:
        """By what factor the winner is better than the start; below 1 where it is worse."""
        start = self.start_score if start_score is None else start_score
        return float((start / self.base_score) ** self.direction * self.sampling.mean)

    def share(self, start_score: float | None = None) -> float | None:
        """Of the gain that needed no training, on the log scale; None where there is no gain to divide."""
        total = self.total(start_score)
        return math.log(self.sampling.mean) / math.log(total) if total > 1 else None


def gain(history: StudyHistory) -> Gain | str:
    """The decomposition, or why there is none.

    The start is the first run of the search that reached its last milestone, at its base point: what one gets who
    trains once and samples as one began. The part without training is what the winner's own checkpoints gain by the
    chosen sampling point over the base point, on the same noise: over the winner's fresh seeds where those have both,
    else on its run of the search. The rest lies between the start and the winner's network, both at the base point and
    on one number of samples: it took other weights.
    """
    if history.objectives:
        return f"{history.objective} is one of several objectives, and what it gains another may have paid"
    history = searched(history)
    found, ranked = winner(history), rankable(history)
    complete = [(run, sheets) for run, sheets in ranked if run.outcome.state is State.FINISHED]
    if found is None or not complete:
        return "no run came to its last milestone"
    parents = [(run, sheets) for run, sheets in ranked if point_key(run) == point_key(found.run)]
    if not parents:
        return "the winner has no ranked run in the search"
    base = parents[0][1][0].sampling
    finals = [pair for pair in rankable(history, "finalist") if point_key(pair[0]) == point_key(found.run)]
    networks, epoch, chosen = finals, found.sheet.epoch, found.sheet.sampling
    factors, candidates = _factors(history, networks, epoch, base, chosen)
    if not factors:  # its finals weren't sampled at the base point: the search's own sweep
        best = min(
            (sheet for _, sheets in parents for sheet in sheets),
            key=lambda sheet: sign(history) * sheet.scores[history.objective].value,
        )
        networks, epoch, chosen = parents, best.epoch, best.sampling
        factors, candidates = _factors(history, networks, epoch, base, chosen)
    starts = {run.key: _last_base(history, sheets) for run, sheets in complete}
    count = parents[0][1][0].samples
    among = (
        networks if networks and networks[0][1][0].samples == count else parents
    )  # fresh seeds weren't chosen for luck
    bases = [value for pair in among if (value := _score(history, pair[1], epoch, base)) is not None]
    if min(*bases, *starts.values()) <= 0:
        return f"a {history.objective} of 0 or less has no logarithm"
    if not factors or not bases:
        return "the winner was not sampled at its base point too"
    first = min((run for run, _ in complete), key=lambda run: run.order)
    return Gain(
        start=first,
        start_score=starts[first.key],
        median_score=median(starts.values()),
        runs=len(starts),
        base_score=summarise(bases, "log").mean,
        base=base,
        chosen=chosen,
        sampling=summarise(factors, "log"),
        samples=(count, networks[0][1][0].samples),
        candidates=candidates,
        direction=sign(history),
    )


def _factors(
    history: StudyHistory, networks: Sequence[Ranked], epoch: int, base: SamplingPoint, chosen: SamplingPoint
) -> tuple[list[float], int]:
    """How many times better the chosen point is on each checkpoint with both scores; and how many points there were."""
    factors, most = [], 0
    for _, sheets in networks:
        before, after = _score(history, sheets, epoch, base), _score(history, sheets, epoch, chosen)
        if before is not None and after is not None and before > 0 and after > 0:
            factors.append((before / after) ** sign(history))
            most = max(most, sum(sheet.epoch == epoch for sheet in sheets))
    return factors, most


def _score(history: StudyHistory, sheets: Sequence[Evaluation], epoch: int, point: SamplingPoint) -> float | None:
    found = (sheet for sheet in sheets if (sheet.epoch, sheet.sampling) == (epoch, point))
    sheet = next(found, None)
    return None if sheet is None else sheet.scores[history.objective].value


def _last_base(history: StudyHistory, sheets: Sequence[Evaluation]) -> float:
    """A run's score at its last milestone, at its base point: the first that was asked for there."""
    last = max(sheet.epoch for sheet in sheets)
    return next(sheet for sheet in sheets if sheet.epoch == last).scores[history.objective].value


# --- in words -------------------------------------------------------------------------------------------------------


def without_training(history: StudyHistory) -> str:
    """The section; empty where the study samples in one way only."""
    learned = searched(history)
    stage: Stage = "search"
    found = sampling_points(learned, stage)
    if len(found) < 2:
        learned, stage = history, "finalist"
        found = sampling_points(learned, stage)
    if len(found) < 2:
        return ""
    samples = rankable(learned, stage)[0][1][0].samples
    factor = scale_of(learned.objective) == "log"
    head = ["sampling", "calls a sample", "n", f"best {learned.objective}", "mean [95 %]", "against the base point"]
    rows = [
        [
            str(row["sampling"]) + (" (base)" if place == 0 else ""),
            number(row["calls"]),
            str(row["n"]),
            number(row["best"]),
            bracket(row["mean"], maybe(row["low"]), maybe(row["high"])),
            change(*(maybe(row[f"against{end}"]) for end in ("", "_low", "_high")), factor=factor) if place else "–",
        ]
        for place, (_, row) in enumerate(found.iterrows())
    ]
    where = "each run's deepest checkpoint that was sampled in every way"
    kind = {"search": "runs of the search", "finalist": "finalists"}[stage]
    return lines(
        "## What sampling gave",
        f"Over the {kind}, {where}, on {samples:,} samples from the same noise. The last column compares each with the "
        "base point on the same checkpoints, run by run.",
        table(head, rows, right=range(1, len(head))),
        _in_words(history, _SCREENED if stage == "finalist" and history.screen else gain(history)),
    )


def _in_words(history: StudyHistory, found: Gain | str) -> str:
    if isinstance(found, str):
        return f"How much of the gain needed no training can't be told: {found}."
    objective = searched(history).objective
    share, of_median = found.share(), found.share(found.median_score)
    start = f"the first complete run (`{found.start.key[:6]}`, {found.base}: {objective} {number(found.start_score)})"
    if share is None:
        return f"The winner is no better than {start}, so there is no gain to divide."
    own, total = estimate(found.sampling), number(found.total())
    text = f"From {start} to the winner the score is better by a factor of {total}. "
    if found.chosen == found.base:
        text += "The winner is sampled at its base point: **0 %** of the gain came without training."
        return lines(text, EDM)
    networks = "its own network" if found.sampling.n == 1 else f"its own {several(found.sampling.n, 'network')}"
    text += f"A factor of {own} is the winner's sampling alone: {networks}, sampled by {found.chosen} instead of "
    text += f"{found.base}. "
    text += f"On the log scale **{100 * share:.0f} %** of the gain needed no training"
    text += (
        f"; {100 * of_median:.0f} % from the median of {several(found.runs, 'complete run')}. " if of_median else ". "
    )
    notes = []
    if found.samples[0] != found.samples[1]:
        notes.append(
            f"The sampling's part is measured on {found.samples[1]:,} samples, the rest on {found.samples[0]:,}: each "
            "is a ratio within one count."
        )
    if found.sampling.n == 1:
        notes.append("One network, so the sampling's part has no interval.")
    elif found.sampling.interval and found.sampling.interval[0] <= 1 <= found.sampling.interval[1]:
        notes.append("Its 95 % interval holds 1: it may be no gain at all.")
    if found.candidates > 1:
        notes.append(f"Its point is the best of {found.candidates} on these same scores, which flatters it slightly.")
    return lines(text + " ".join(notes), EDM)
