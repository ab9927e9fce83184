"""What a study may claim: its winner, how surely, and how to read the table of its finalists."""

from __future__ import annotations

from collections.abc import Sequence

from diffsearch.records import Evaluation, StudyHistory
from diffsearch.report.phrases import bounds_of, estimate, number, settings_text, several, two_digits
from diffsearch.report.ranks import Winner, configurations, winner
from diffsearch.space.metric_names import scale_of


def won_sentence(history: StudyHistory) -> str:
    found = winner(history)
    if found is None:
        return "Nothing won: no run has a score that may be ranked."
    text = f"**{settings_text(history, found.run)}**"
    aside = [f"epoch {found.sheet.epoch}", f"{found.sheet.samples:,} samples", *floor_and_bias(history, found)]
    if found.configuration is None or found.summary.interval is None:
        aside.insert(0, "1 seed")
        return (
            f"Best so far: {text}, {history.objective} {number(found.summary.mean)} ({', '.join(aside)}); "
            "one run, so no interval: nothing is claimed."
        )
    aside.insert(0, several(found.summary.n, "seed"))
    head = f"{text}: {history.objective} {estimate(found.summary)} ({', '.join(aside)})"
    if not found.others:
        return f"{head}; nothing else was repeated, so nothing is claimed about the others."
    nearest = (found.ties or found.others)[0]
    return f"{head}. {claim(found, f'{settings_text(history, nearest.runs[0])}: {estimate(nearest.summary)}')}"


def claim(found: Winner, nearest: str) -> str:
    """What the best of several configurations was shown to be.

    Args:
        nearest: tells the best of those that it isn't told apart from, or of all others where there is none.
    """
    count, ties = len(found.others), len(found.ties)
    if found.apart:
        return f"Told apart from the {'second' if count == 1 else f'{count} others, the best of them'} ({nearest})."
    some = f"{ties} of the {count} others" if ties < count else f"any of {count} others"
    others = "the second" if count == 1 else some
    return f"**Not told apart** from {others} ({nearest}): a tie."


def floor_and_bias(history: StudyHistory, found: Winner) -> list[str]:
    """What stands beside a winner's score: `floor 0.684`, `bias about 1.3`, as far as they are known."""
    floor = bounds_of(history, history.objective, found.sheet.samples)
    sheets = found.configuration.sheets if found.configuration else (found.sheet,)
    bias = mean_bias(sheets, history.objective)
    words = [f"floor {number(floor.floor)}"] if floor else []
    return words + ([f"bias about {two_digits(bias)}"] if bias is not None else [])


def mean_bias(sheets: Sequence[Evaluation], metric: str) -> float | None:
    """Mean of what their scores say of their own bias; None where not all do."""
    found = [sheet.scores[metric].bias if metric in sheet.scores else None for sheet in sheets]
    known = [bias for bias in found if bias is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None


def interval_sentence(history: StudyHistory) -> str:
    """What the brackets of a table are."""
    log = scale_of(history.objective) == "log"
    brackets = "Means are geometric; brackets" if log else "Brackets"
    method = "Student's t of logarithms" if log else "Student's t"
    return f"{brackets} hold, with 95 % confidence, the score that half of all seeds better ({method})."


def finals_sentences(history: StudyHistory) -> list[str]:
    """How to read the table of the finalists: its intervals, what p is of, and what was chosen on the same scores."""
    found = configurations(history)
    if not found:
        return []
    lines = [interval_sentence(history)]
    if len(found) > 1:
        ties = sum(c.standing == "tie" for c in found)
        lines.append(
            "p is that of being as good as the first, by Welch's t test, corrected for all comparisons: below 0.05 the "
            "first is called better, and in at most five of a hundred studies is any such claim wrong. "
            + (f"{ties} are a tie, the first among them." if ties > 1 else "So the first is the winner.")
        )
    if max(c.candidates for c in found) > 1:
        count = max(c.candidates for c in found)
        lines.append(
            f"Each row is the best of {count} pairs of epoch and sampling point, chosen by the mean over the same "
            "seeds, so it is slightly flattered."
        )
    lost = sum(c.asked - c.summary.n for c in found)
    if lost > 0:
        lines.append(
            f"{several(lost, 'seed')} did not finish; n counts those that did, which flatters what is unstable."
        )
    if found[0].runs[0].stage == "search":
        lines.append(
            "These are the search's own runs, not fresh seeds: the scores that made one of them the best of many are "
            "in its interval, which is too good by that much."
        )
    return lines
