"""Several studies in one report: their winners side by side, metrics that differ kept apart."""

from __future__ import annotations

from collections.abc import Sequence

from diffsearch.records import StudyHistory
from diffsearch.report import phrases, tables
from diffsearch.report.blocks import lines, table
from diffsearch.report.ledger import ALONE, NEW, entry, ledger
from diffsearch.report.phrases import compact, duration, estimate, number
from diffsearch.report.ranks import Winner, sign
from diffsearch.scoring.statistics import judge
from diffsearch.space.metric_names import scale_of


def opening(histories: Sequence[StudyHistory]) -> str:
    """Title, and one table of winners for each kind of score: data, metric, sample count and extractor alike."""
    names = phrases.listing([history.name for history in histories])
    kinds: dict[tuple[str, str, int, str, str], list[tuple[StudyHistory, Winner]]] = {}
    without = []
    for history in histories:
        found = tables.winner(history)
        if found is None:
            without.append(history)
            continue
        extractor = found.sheet.scores[history.objective].extractor
        data = str(found.run.settings.dataset)
        kind = (history.objective, history.direction, found.sheet.samples, extractor, data)
        kinds.setdefault(kind, []).append((history, found))
    parts = [f"# {names}", f"{phrases.several(len(histories), 'study').replace('studys', 'studies')} compared."]
    if len(kinds) > 1:
        parts.append(
            "Scores of different data, metrics, sample counts or extractors can't be compared: each kind has a table."
        )
    for (metric, _, samples, _, data), members in kinds.items():
        parts.append(_winners(metric, samples, data, members))
    if without:
        parts.append(f"Without a winner: {phrases.listing([history.name for history in without])}.")
    return lines(*parts)


def _winners(metric: str, samples: int, data: str, members: list[tuple[StudyHistory, Winner]]) -> str:
    members = sorted(members, key=lambda pair: sign(pair[0]) * pair[1].summary.mean)
    rows = []
    for history, found in members:
        cost = ledger(history)
        floor = phrases.bounds_of(history, metric, samples)
        rows.append(
            [
                history.name,
                estimate(found.summary),
                str(found.summary.n),
                phrases.settings_text(history, found.run),
                str(found.sheet.epoch),
                f"{entry(cost, NEW, 'epochs'):,.0f} of {entry(cost, ALONE, 'epochs'):,.0f}",
                compact(entry(cost, NEW, "images_trained")),
                duration(history.wall_s),
                number(floor.floor) if floor else "–",
                number(floor.ceiling) if floor else "–",
            ]
        )
    head = ["study", f"{metric} [95 %]", "n", "winner", "epoch", "epochs trained", "images", "time", "floor", "noise"]
    return lines(
        f"## {metric} on {samples:,} samples, {data}",
        table(head, rows, right=[1, 2, 4, 5, 6, 7, 8, 9]),
        _verdict(members),
    )


def _verdict(members: list[tuple[StudyHistory, Winner]]) -> str:
    if len(members) < 2:
        return ""
    (first, best), (_, next_best) = members[0], members[1]
    if best.summary.interval is None or next_best.summary.interval is None:
        return f"{first.name} has the better score, but a score of one run has no interval: nothing is claimed."
    scores = [found.configuration.scores if found.configuration else (found.summary.mean,) for _, found in members]
    verdict = judge(scores, first.direction, scale_of(first.objective))
    apart = [members[i][0].name for i in range(len(members)) if i not in (verdict.first, *verdict.ties)]
    tied = [members[i][0].name for i in verdict.ties]
    said = [f"told apart from {phrases.listing(apart)}"] * bool(apart)
    said += [f"not told apart from {phrases.listing(tied)}: a tie"] * bool(tied)
    return f"{first.name} is {', '.join(said)}."
