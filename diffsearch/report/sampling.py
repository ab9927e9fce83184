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
from diffsearch.report.phrases import estimate, maybe, number, plus_minus, several
from diffsearch.report.ranks import Ranked, Stage, point_key, rankable, searched, sign, winner
from diffsearch.scoring.statistics import Summary, summarise
from diffsearch.space.settings import SamplingPoint

EDM = (
    "For comparison: a better sampler alone took a trained ImageNet-64 network from FID 2.07 to 1.55, and training it "
    "anew to 1.36 (Karras et al. 2022): 73 % of the drop, 69 % on the log scale."
)


# --- sampling points ------------------------------------------------------------------------------------------------


def sampling_points(history: StudyHistory, stage: Stage = "search") -> pd.DataFrame:
    """One row a sampling point, over one checkpoint a run: the deepest of those that were sampled in the most ways.

    Returns:
        sampling, calls (of the network, a sample), n (runs that have it), best, mean and se of the score, and ratio,
        ratio_se, ratio_n: the geometric mean of its score over the base point's on the same checkpoint, below 1 where
        it is lower. None where that isn't defined, as of a kernel distance that isn't above 0.
    """
    scores: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    calls: dict[str, list[float]] = {}
    for _, sheets in rankable(history, stage):
        here = _most_swept(sheets)
        base = here[0].scores[history.objective].value
        for sheet in here:
            value, text = sheet.scores[history.objective].value, str(sheet.sampling)
            scores.setdefault(text, []).append(value)
            calls.setdefault(text, []).append(sheet.network_calls / sheet.samples)
            if value > 0 and base > 0:
                ratios.setdefault(text, []).append(math.log(value / base))
    rows = []
    for text, values in scores.items():
        of, log = summarise(values), summarise(ratios[text]) if text in ratios else None
        ratio = math.exp(log.mean) if log else None
        spread = ratio * log.se if ratio is not None and log and log.se is not None else None
        best = min(values, key=lambda value: sign(history) * value)
        rows.append((text, summarise(calls[text]).mean, of.n, best, of.mean, of.se, ratio, spread, log.n if log else 0))
    columns = ["sampling", "calls", "n", "best", "mean", "se", "ratio", "ratio_se", "ratio_n"]
    return pd.DataFrame(rows, columns=columns)


def _most_swept(sheets: Sequence[Evaluation]) -> list[Evaluation]:
    """Those of the deepest epoch among those with the most sampling points, the base point first."""
    by_epoch: dict[int, list[Evaluation]] = {}
    for sheet in sheets:
        by_epoch.setdefault(sheet.epoch, []).append(sheet)
    return max(by_epoch.items(), key=lambda pair: (len(pair[1]), pair[0]))[1]


# --- the gain without training --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gain:
    """From a start to the winner, in natural logarithms of the score: above 0 is better."""

    start: RunHistory  # the first run of the search that came to its last milestone
    start_score: float  # there, at its base point
    median_score: float  # the same of all such runs, the median
    runs: int  # such runs
    base_score: float  # the winner's network at its base point, at the start's number of samples
    base: SamplingPoint
    chosen: SamplingPoint
    sampling: Summary  # gain by the chosen point on the winner's own networks, over its seeds
    samples: tuple[int, int]  # images scored: of start and base, of the gain by sampling
    candidates: int  # sampling points that the chosen one was chosen from
    direction: float  # 1 where low scores are good

    def total(self, start_score: float | None = None) -> float:
        start = self.start_score if start_score is None else start_score
        return self.direction * math.log(start / self.base_score) + self.sampling.mean

    def share(self, start_score: float | None = None) -> float | None:
        """Of the gain that needed no training; None where there is no gain to divide."""
        total = self.total(start_score)
        return self.sampling.mean / total if total > 0 else None


def gain(history: StudyHistory) -> Gain | str:
    """The decomposition, or why there is none.

    The start is the first run of the search that reached its last milestone, at its base point: what one gets who
    trains once and samples as one began. The part without training is what the winner's own checkpoints gain by the
    chosen sampling point over the base point, on the same noise: over the winner's fresh seeds where those have both,
    else on its run of the search. The rest lies between the start and the winner's network, both at the base point and
    on one number of samples: it took other weights.
    """
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
    logs, candidates = _gains(history, networks, epoch, base, chosen)
    if not logs:  # its finals weren't sampled at the base point: the search's own sweep
        best = min(
            (sheet for _, sheets in parents for sheet in sheets),
            key=lambda sheet: sign(history) * sheet.scores[history.objective].value,
        )
        networks, epoch, chosen = parents, best.epoch, best.sampling
        logs, candidates = _gains(history, networks, epoch, base, chosen)
    starts = {run.key: _last_base(history, sheets) for run, sheets in complete}
    count = parents[0][1][0].samples
    among = (
        networks if networks and networks[0][1][0].samples == count else parents
    )  # fresh seeds weren't chosen for luck
    bases = [value for pair in among if (value := _score(history, pair[1], epoch, base)) is not None]
    if min(*bases, *starts.values()) <= 0:
        return f"a {history.objective} of 0 or less has no logarithm"
    if not logs or not bases:
        return "the winner was not sampled at its base point too"
    first = min((run for run, _ in complete), key=lambda run: run.order)
    return Gain(
        start=first,
        start_score=starts[first.key],
        median_score=median(starts.values()),
        runs=len(starts),
        base_score=math.exp(summarise(map(math.log, bases)).mean),
        base=base,
        chosen=chosen,
        sampling=summarise(logs),
        samples=(count, networks[0][1][0].samples),
        candidates=candidates,
        direction=sign(history),
    )


def _gains(
    history: StudyHistory, networks: Sequence[Ranked], epoch: int, base: SamplingPoint, chosen: SamplingPoint
) -> tuple[list[float], int]:
    """log(base / chosen), signed, of each checkpoint that has both scores; and how many points there were."""
    logs, most = [], 0
    for _, sheets in networks:
        before, after = _score(history, sheets, epoch, base), _score(history, sheets, epoch, chosen)
        if before is not None and after is not None and before > 0 and after > 0:
            logs.append(sign(history) * math.log(before / after))
            most = max(most, sum(sheet.epoch == epoch for sheet in sheets))
    return logs, most


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
    head = ["sampling", "calls a sample", "n", f"best {learned.objective}", "mean", "against the base point"]
    rows = [
        [
            str(row["sampling"]) + (" (base)" if place == 0 else ""),
            number(row["calls"]),
            str(row["n"]),
            number(row["best"]),
            estimate(Summary(row["mean"], maybe(row["se"]), int(row["n"]))),
            "–" if maybe(row["ratio"]) is None else "× " + plus_minus(row["ratio"], maybe(row["ratio_se"])),
        ]
        for place, (_, row) in enumerate(found.iterrows())
    ]
    where = "each run's deepest checkpoint that was sampled in every way"
    kind = {"search": "runs of the search", "finalist": "finalists"}[stage]
    return lines(
        "## What sampling gave",
        f"Over the {kind}, {where}, on {samples:,} samples from the same noise. The last column is the geometric mean "
        "of the ratio to the base point on the same checkpoint.",
        table(head, rows, right=range(1, len(head))),
        _in_words(history, gain(history)),
    )


def _in_words(history: StudyHistory, found: Gain | str) -> str:
    if isinstance(found, str):
        return f"How much of the gain needed no training can't be told: {found}."
    objective = searched(history).objective
    share, of_median = found.share(), found.share(found.median_score)
    start = f"the first complete run (`{found.start.key[:6]}`, {found.base}: {objective} {number(found.start_score)})"
    if share is None:
        return f"The winner is no better than {start}, so there is no gain to divide."
    factor = math.exp(abs(found.total()))
    own = plus_minus(math.exp(found.sampling.mean), _spread(found.sampling))
    text = f"From {start} to the winner the score is better by a factor of {number(factor)}. "
    if found.chosen == found.base:
        text += "The winner is sampled at its base point: **0 %** of the gain came without training."
        return lines(text, EDM)
    networks = "its own network" if found.sampling.n == 1 else f"its own {several(found.sampling.n, 'network')}"
    text += (
        f"{own} of that is the winner's sampling alone: {networks}, sampled by {found.chosen} instead of {found.base}. "
    )
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
    elif found.sampling.se is not None and abs(found.sampling.mean) < 2 * found.sampling.se:
        notes.append("That part is within two standard errors of none.")
    if found.candidates > 1:
        notes.append(f"Its point is the best of {found.candidates} on these same scores, which flatters it slightly.")
    return lines(text + " ".join(notes), EDM)


def _spread(log: Summary) -> float | None:
    """Standard error of exp of a mean logarithm, to first order."""
    return None if log.se is None else math.exp(log.mean) * log.se
