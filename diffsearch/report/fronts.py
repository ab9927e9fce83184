"""Several objectives in words: which evaluations are on their front, from where to where it goes, its knee."""

from __future__ import annotations

from diffsearch.records import State, StudyHistory
from diffsearch.report.phrases import listing, number, settings_text, several
from diffsearch.report.ranks import Member, broken, members
from diffsearch.space.quantities import COSTS


def front(history: StudyHistory) -> list[Member]:
    """The evaluations that none is better than, by the first objective."""
    return [member for member in members(history) if member.rank == 0]


def front_sentence(history: StudyHistory) -> str:
    """How many of how many evaluations are on the front, from where to where it goes, and its knee."""
    every = members(history)
    found = [member for member in every if member.rank == 0]
    if not found:
        return "Nothing is on the front: no score may be ranked."
    knee = next(member for member in found if member.is_knee)
    verb = "is" if len(found) == 1 else "are"
    text = f"{len(found)} of {several(len(every), 'evaluation')} {verb} on the front of {listing(history.objectives)}"
    if len(found) > 1:
        text += f", from {values_text(history, found[0])} to {values_text(history, found[-1])}"
    return f"{text}. Its knee: **{settings_text(history, knee.run)}**, {_place(knee)}: {values_text(history, knee)}."


def constraint_sentences(history: StudyHistory) -> str:
    """What constraints kept from being trained and from winning; empty where there are none."""
    if not history.constraints:
        return ""
    refused = sum(run.outcome.state is State.INFEASIBLE for run in history.runs)
    sheets = [(run, sheet) for run in history.runs for sheet in run.evaluations if run.outcome.ok]
    broke = sum(bool(broken(history, run, sheet)) for run, sheet in sheets)
    before = f"{several(refused, 'point')} broke that beforehand and had no training; " if refused else ""
    after = f"{broke:,}" if broke else "none"
    text = f"Constraints: {listing([str(constraint) for constraint in history.constraints])}."
    return f"{text} {before}{after} of {several(len(sheets), 'evaluation')} broke it as measured" + (
        ", and can't win." if broke else "."
    )


def values_text(history: StudyHistory, member: Member) -> str:
    """`fd-digits 12.3 at network_calls 5`."""
    pairs = zip(history.objectives, member.values, strict=True)
    return " at ".join(f"{name} {shown(name, value)}" for name, value in pairs)


def shown(name: str, value: float) -> str:
    """Three digits of a score; a cost is a count."""
    return number(value) if name not in COSTS else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _place(member: Member) -> str:
    return f"run `{member.run.key[:6]}`, epoch {member.sheet.epoch}, {member.sheet.sampling}"
