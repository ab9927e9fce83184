"""What to try next: a study file ready to run, from the user's own text, each change with its reason as a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from diffsearch.errors import ConfigError
from diffsearch.records import StudyHistory
from diffsearch.report import phrases
from diffsearch.report.blocks import code, lines
from diffsearch.report.extend import joined
from diffsearch.report.importance import NOTHING, Importances, importances
from diffsearch.report.next_front import Front
from diffsearch.report.next_region import region
from diffsearch.report.next_rules import Evidence, Finding, edges, fixed, milestones
from diffsearch.report.ranks import point_key, rankable, searched, winner
from diffsearch.space.edit import Change, rewrite
from diffsearch.space.lines import Problems, parse
from diffsearch.space.load import loads
from diffsearch.space.settings import Axis, Choice, Choices, Integers, LogUniform, Point, StudySpec, to_plain

MARK = "next:"
LONGEST = 100  # letters of a study's name
_SAID = "What the data doesn't decide stays as it was."


@dataclass(frozen=True, slots=True)
class NextStudy:
    """A study file that follows from another's results."""

    name: str
    text: str  # "" where the data supports no change
    changed: tuple[str, ...]  # dotted paths, the name not among them
    words: str  # what a model of the scores makes of the space, and why there is no file if there is none


def next_study(history: StudyHistory, spec: StudySpec | None = None, found: Importances | None = None) -> NextStudy:
    """The study to run after this one.

    The region where a forest expects improvement, axes that matter no longer fixed, an axis that matters and whose best
    value is its outermost one step wider, and one more milestone where the winner still gets better. It loads, has
    another name, and its space holds the winner (of several objectives the knee), whose run is in the store.

    Args:
        spec: the study file as it was checked; by default it is read from the history's text.
        found: the history's importances, where they are known.
    """
    name = _next_name(history.name)
    try:
        spec = spec or loads(history.text)
    except ConfigError as error:
        return NextStudy(name, "", (), f"The study's file can't be read here, so nothing is suggested: {_first(error)}")
    whole, history = history, searched(history)
    won, front = winner(whole) or winner(history), Front.of(history, spec) if history.objectives else None
    if won is None or not history.milestones or (history.objectives and front is None):
        return NextStudy(name, "", (), "No run has a score that ranks, so nothing follows.")
    known = Evidence(history, spec, won, NOTHING if front else found or importances(history))
    findings, words = _across(front) if front else _follows(known)
    head = Change("name", name, _opening(known, whole.objective))
    old = "enqueue: none of the old points, which may lie outside."
    cleared = [Change("search.enqueue", [], old)] if spec.search.enqueue else []
    changes = _possible(spec, [head, *cleared], [_change(spec, finding) for finding in findings])
    if not changes:
        few = f"{phrases.several(len(rankable(history)), 'run')} that rank"
        return NextStudy(name, "", (), f"{words} The data ({few}) supports no other space: more runs of this one may.")
    begins = _possible(
        spec, [head, *changes], _beginning(known, front.points if front else [known.point], [head, *cleared, *changes])
    )
    changes += begins if any(change.path == "search.enqueue" for change in begins) else [*begins, *cleared]
    text = rewrite(spec.text, [head, *changes], MARK)
    return NextStudy(name, text, tuple(change.path for change in changes), f"{words} {_SAID}")


def what_to_try_next(history: StudyHistory, spec: StudySpec | None, importance: Importances) -> str:
    """The report's section: the file, or in words why there is none."""
    found = next_study(history, spec, importance)
    if not found.text:
        return lines("## What to try next", found.words)
    how = (
        f"Each change says why in the line above it. `diffsearch next {history.name} -o {found.name}.yaml` writes the "
        f"file, `diffsearch run {found.name}.yaml` begins it. What the store has, as the winner's run, isn't run again."
    )
    return lines("## What to try next", found.words, how, code(found.text, "yaml"))


def _follows(known: Evidence) -> tuple[list[Finding], str]:
    """What follows from the results of one objective, and what the model of its scores makes of the space."""
    inside = region(known)
    done = [] if _one_at_a_time(known) else list(fixed(known))
    findings = _together(known.spec, list(inside.findings), done, list(edges(known)), milestones(known))
    if _one_at_a_time(known) and len(known.spec.axes) > 1:
        findings += list(_jointly(known))
    return findings, inside.words


def _across(front: Front) -> tuple[list[Finding], str]:
    """The same of several objectives."""
    regions = front.regions()
    words = f"With {phrases.listing(front.history.objectives)} weighed alike: {regions[0].words}"
    spec = front.views[0].spec
    return _together(spec, front.narrowed(regions), front.fixed(), front.edges(), front.milestones()), words


def _together(
    spec: StudySpec, narrowed: list[Finding], fixed: list[Finding], edges: list[Finding], more: Finding | None
) -> list[Finding]:
    """One finding an axis: fixed if it matters no longer, else its region, and the step beyond an edge on top of it."""
    done = {finding.path: finding for finding in fixed}
    found = {finding.path: finding for finding in narrowed if finding.path not in done}
    domains: dict[str, Any] = {axis.path: axis.domain for axis in (*spec.axes, *spec.sampling_axes)}
    for edge in edges:
        if edge.path in done:
            continue
        if edge.path in found:
            inner = found[edge.path]
            both = joined(domains[edge.path], inner.value, edge.value)
            why = f"{inner.why} {edge.why.partition(': ')[2].partition('. ')[0]}."
            found[edge.path] = Finding(edge.path, both, why)
        else:
            found[edge.path] = edge
    return [*found.values(), *done.values(), *([more] if more else [])]


def _one_at_a_time(known: Evidence) -> bool:
    """Whether one axis was varied after the other, so that importances are those at one place."""
    return known.spec.search.algorithm.name == "sequential"


def _jointly(known: Evidence) -> Iterator[Finding]:
    tried = len({point_key(run) for run in known.history.runs if run.stage == "search"})
    why = (
        "algorithm: sequential varied one axis at a time, so nothing is known of axes together and none is fixed; tpe "
        "varies all at once."
    )
    if known.spec.search.runs is None:  # first: tpe may not do without
        yield Finding("search.runs", tried, f"runs: as many points as the study tried, {tried:,}.")
    yield Finding("search.algorithm", Choice.of("tpe"), why)


def _opening(known: Evidence, objective: str) -> str:
    history = known.history
    best = f"best {objective} {phrases.number(known.won.summary.mean)}"
    if history.objectives:
        best = f"by the front of {phrases.listing(history.objectives)}"
    return (
        f"what {history.name} suggests after {phrases.several(len(rankable(history)), 'run')} that rank, {best}. "
        f'Comments with "{MARK}" say what was changed and why; the others are its own.'
    )


def _beginning(known: Evidence, best: Sequence[Point], changes: Sequence[Change]) -> list[Change]:
    """What the new search begins with: the old one's scores, or its best points where those lack a new milestone."""
    spec = loads(rewrite(known.spec.text, changes, MARK), beside=known.spec.source)
    if spec.search.algorithm.name in ("sequential", "grid") or not spec.axes:
        return []
    old = {axis.path: axis for axis in known.spec.axes}
    points = [
        {
            axis.path: _plain(point[axis.path], old[axis.path], _spelled(known.spec.text, old[axis.path]))
            for axis in spec.axes
            if axis.path in point
        }
        for point in best
        if all(spec.fixed.get(path, value) == value for path, value in point.items())
    ]
    which = (
        f"the best point of {known.history.name} first, whose run is"
        if not known.history.objectives
        else f"what is left of {known.history.name}'s front first, whose runs are"
    )
    first = Change("search.enqueue", points, f"enqueue: {which} in the store.")
    if spec.milestones != known.spec.milestones or spec.sampling_axes != known.spec.sampling_axes:
        return [first] if points else []
    sources = [*map(str, known.spec.search.warm_start), known.history.name]
    why = f"warm_start: what {known.history.name} scored in this space is known to the algorithm and costs no run."
    return [Change("search.warm_start", sources, why), *([first] if points and known.spec.search.enqueue else [])]


def _possible(spec: StudySpec, before: Sequence[Change], changes: Sequence[Change]) -> list[Change]:
    """The changes with which the file loads: all, or those that can be added one by one."""
    if _loads(spec, [*before, *changes]):
        return list(changes)
    kept: list[Change] = []
    for change in changes:
        if _loads(spec, [*before, *kept, change]):
            kept.append(change)
    return kept


def _loads(spec: StudySpec, changes: Sequence[Change]) -> bool:
    try:
        loads(rewrite(spec.text, changes, MARK), beside=spec.source)
    except ConfigError:
        return False
    return True


def _change(spec: StudySpec, finding: Finding) -> Change:
    """A finding in the words of a study file; values that the file has already are spelled as there."""
    path, value = finding.path, finding.value
    axis = next((each for each in (*spec.axes, *spec.sampling_axes) if each.path == path), None)
    if axis is None:
        return Change(path, value.name if isinstance(value, Choice) else to_plain(value), finding.why)
    raw, spelled = _raw(spec.text, path), _spelled(spec.text, axis)
    if isinstance(value, Choices) and len(value.values) == 1 and not axis.when:
        value = value.values[0]
    if isinstance(value, Choices):
        return Change(path, [_plain(each, axis, spelled) for each in value.values], finding.why)
    if isinstance(value, LogUniform | Integers) or hasattr(value, "low"):
        word = {LogUniform: "log", Integers: "int"}.get(type(value), "uniform")
        return Change(path, {word: [value.low, value.high]}, finding.why)
    single = _plain(value, axis, spelled)
    return Change(path, [single] if isinstance(raw, dict) and "values" in raw else single, finding.why)


def _plain(value: Any, axis: Axis, spelled: list[Any] | None) -> Any:
    """As YAML's types, and as the file has it where it does: `2k`."""
    values = axis.domain.values if isinstance(axis.domain, Choices) else ()
    if spelled is not None and len(spelled) == len(values) and value in values:
        return spelled[values.index(value)]
    if isinstance(value, Choice):
        return (
            {"name": value.name, **{key: to_plain(inner) for key, inner in value.options}}
            if value.options
            else value.name
        )
    return to_plain(value)


def _spelled(text: str, axis: Axis) -> list[Any] | None:
    """The values of a list as the file has them."""
    raw = _raw(text, axis.path)
    own = raw.get("values") if isinstance(raw, dict) else raw
    return own if isinstance(axis.domain, Choices) and isinstance(own, list) else None


def _raw(text: str, path: str) -> Any:
    node = parse(text, Problems())
    plain: Any = node.plain if node is not None else None
    for part in path.split("."):
        plain = plain.get(part) if isinstance(plain, dict) else None
    return plain


def _next_name(name: str) -> str:
    """x → x-next → x-next2 → x-next3."""
    match = re.fullmatch(r"(.*)-next(\d*)", name)
    stem, count = (match[1], int(match[2] or 1) + 1) if match else (name, 1)
    end = "-next" if count == 1 else f"-next{count}"
    return stem[: LONGEST - len(end)] + end


def _first(error: ConfigError) -> str:
    problem = error.problems[0]
    return f"{problem.path}: {problem.message}." if problem.path else f"{problem.message}."
