"""The last lines of a run: who won and how surely, what it cost, where the report is."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsearch.cli.places import DEFAULT_STORE
from diffsearch.cli.words import several
from diffsearch.records import State, StudyHistory
from diffsearch.report import claims, fronts, phrases
from diffsearch.report.ledger import ALONE, NEW, entry, ledger
from diffsearch.report.ranks import Member, Winner, winner

if TYPE_CHECKING:
    from diffsearch.study.driver import Summary


def winner_line(history: StudyHistory) -> str:
    """The first line: the winner, its 95 % interval, and what it is told apart from."""
    found = winner(history)
    if found is None:
        return f"Nothing won: {_causes(history) or 'no run has a score that may be ranked'}."
    if history.objectives:
        return fronts.front_sentence(history).replace("**", "").replace("`", "")
    text = (
        f"{_settings(history, found)}: {history.objective} {phrases.estimate(found.summary)} ({_aside(history, found)})"
    )
    if found.configuration is None or found.summary.interval is None:
        return f"{text}. One run, so no interval: nothing is claimed."
    if not found.others:
        return f"{text}. Nothing else was repeated: no claim about the others."
    nearest = (found.ties or found.others)[0]
    return f"{text}. {claims.claim(found, phrases.estimate(nearest.summary)).replace('**', '')}"


def cost_line(history: StudyHistory) -> str:
    """The second line: what it cost, against every milestone trained alone."""
    table = ledger(history)
    trained, alone = entry(table, NEW, "epochs"), entry(table, ALONE, "epochs")
    cost = f"{phrases.duration(history.wall_s)} on {several(history.workers, 'worker')}"
    if history.sessions > 1:
        cost += f" in {history.sessions} sessions"
    cost += f"; {trained:,.0f} of {alone:,.0f} epochs trained."
    if history.search_ended.startswith("budget."):
        return f"{cost} {phrases.ending_sentence(history)} Raised, it goes on with the same command."
    return f"{cost}   Again, or with more runs: the same command."


def places_line(report: Path | None, store: Path) -> str:
    """The third line: where the report is, and what shows the runs."""
    return f"report  {report or 'not written (--no-report)'}      runs  diffsearch ui{_store(store)}"


def stored_line(history: StudyHistory, report: Path | None, wall_s: float) -> str:
    """The one line of a run that had nothing left to compute."""
    evaluations = sum(len(run.all_evaluations) for run in history.runs)
    what = f"{several(len(history.runs), 'run')}, {several(evaluations, 'evaluation')}"
    where = f" Report: {report}" if report else ""
    return f"{history.name}: everything is in the store ({what}).{where}       {wall_s:.1f} s"


def facts(history: StudyHistory, summary: Summary, report: Path | None) -> dict[str, Any]:
    """The summary of `--json`."""
    found = winner(history)
    table = ledger(history)
    return {
        "study": history.name,
        "interrupted": summary.interrupted,
        "objective": history.objective,
        "winner": None if found is None else best_facts(history, found),
        "runs": len(history.runs),
        "evaluations": sum(len(run.all_evaluations) for run in history.runs),
        "trained_epochs_now": summary.trained_epochs,
        "evaluations_now": summary.evaluations,
        "epochs_trained": entry(table, NEW, "epochs"),
        "epochs_alone": entry(table, ALONE, "epochs"),
        "wall_s": round(history.wall_s, 3),
        "workers": history.workers,
        "search_ended": history.search_ended or None,
        "report": str(report) if report else None,
    }


def best_facts(history: StudyHistory, found: Winner) -> dict[str, Any]:
    """The winner as JSON."""
    traded = {"front": [_front_facts(history, member) for member in fronts.front(history)]}
    return {
        "run": found.run.key,
        "epoch": found.sheet.epoch,
        "settings": _settings(history, found),
        "objective": history.objective,
        "score": found.summary.mean,
        "interval_95": None if found.summary.interval is None else list(found.summary.interval),
        "seeds": found.summary.n,
        "samples": found.sheet.samples,
        "told_apart_from_all_others": found.apart,
        "p": max((c.p for c in found.others if c.p is not None), default=None),
        **(traded if history.objectives else {}),
    }


def _front_facts(history: StudyHistory, member: Member) -> dict[str, Any]:
    """A member of the front as JSON."""
    return {
        "run": member.run.key,
        "epoch": member.sheet.epoch,
        "sampling": str(member.sheet.sampling),
        "evaluation": member.sheet.key,
        "knee": member.is_knee,
        **dict(zip(history.objectives, member.values, strict=True)),
    }


def all_failed(history: StudyHistory) -> bool:
    """Whether the study has runs and none of them has a score that ranks."""
    return bool(history.runs) and winner(history) is None


def _settings(history: StudyHistory, found: Winner) -> str:
    return phrases.settings_text(history, found.run)


def _aside(history: StudyHistory, found: Winner) -> str:
    words = [several(found.summary.n, "seed"), f"{found.sheet.samples:,} samples"]
    return "; ".join([", ".join(words), *claims.floor_and_bias(history, found)])


def _causes(history: StudyHistory) -> str:
    """`3 runs diverged (loss became NaN at epoch 1, step 31)`: of each state the first run's reason."""
    texts = []
    for state in State:
        of = [run for run in history.runs if run.outcome.state is state]
        if of and not of[0].outcome.ok:
            reason = f" ({of[0].outcome.reason})" if of[0].outcome.reason else ""
            texts.append(f"{several(len(of), 'run')} {state}{reason}")
    return ", ".join(texts)


def _store(store: Path) -> str:
    """The option that names a store, where it isn't the default one."""
    if store == DEFAULT_STORE.absolute():
        return ""
    here = Path.cwd()
    return f" --store {shlex.quote(str(store.relative_to(here) if store.is_relative_to(here) else store))}"
