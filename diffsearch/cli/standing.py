"""`diffsearch status`: where studies stand, read from the store alone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from diffsearch.cli.places import SHORT_KEY
from diffsearch.cli.words import clock, point_words, several
from diffsearch.records import RunHistory, State, StudyHistory
from diffsearch.report.phrases import estimate, number, settings_text
from diffsearch.report.ranks import Winner, searched, winner
from diffsearch.store import lease
from diffsearch.store.lease import Holder
from diffsearch.study.history import StudyFolder
from diffsearch.study.ledger import FILE

SHOWN = tuple(state for state in State if state is not State.RUNNING)


@dataclass(frozen=True)
class Standing:
    """One study."""

    folder: StudyFolder
    history: StudyHistory
    holder: Holder | None  # who runs it now
    best: Winner | None
    ranked: StudyHistory  # that it is the best of: by the screen while nothing is scored in full

    @classmethod
    def of(cls, folder: StudyFolder) -> Standing:
        history = folder.history()
        ranked = history if winner(history) is not None else searched(history)
        return cls(folder, history, lease.is_held(folder.path / "lease"), winner(ranked), ranked)

    @property
    def open(self) -> list[RunHistory]:
        return [run for run in self.history.runs if run.outcome.state is State.RUNNING]

    @property
    def word(self) -> str:
        if self.holder is not None:
            return "running"
        return f"unfinished, {len(self.open)} to go on" if self.open else "at rest"

    def counts(self) -> dict[State, int]:
        states = [run.outcome.state for run in self.history.runs]
        return {state: states.count(state) for state in SHOWN if states.count(state)}

    def best_text(self) -> str:
        if self.best is None:
            return "no score yet"
        screen = " (screen)" if self.ranked is not self.history else ""
        return f"{self.ranked.objective}{screen} {estimate(self.best.summary)}"

    def json(self) -> str:
        told = {
            "study": self.history.name,
            "state": "running" if self.holder else "unfinished" if self.open else "at rest",
            "holder": str(self.holder) if self.holder else None,
            "runs": len(self.history.runs),
            "open": len(self.open),
            **{str(state): count for state, count in self.counts().items()},
            "objective": self.ranked.objective,
            "best": self.best.summary.mean if self.best else None,
            "best_run": self.best.run.key if self.best else None,
            "wall_s": self.history.wall_s,
            "sessions": self.history.sessions,
            "search_ended": self.history.search_ended or None,
        }
        return json.dumps(told, allow_nan=False)

    def text(self) -> str:
        history = self.history
        ended = [f"{count} {state}" for state, count in self.counts().items()]
        lines = [f"{history.name}   {self.word}" + (f" ({self.holder})" if self.holder else "")]
        runs = " · ".join(
            [several(len(history.runs), "run"), *ended, *([f"{len(self.open)} open"] if self.open else [])]
        )
        lines.append(f"  runs     {runs}")
        if self.holder is None and history.search_ended:
            lines.append(f"  search   ended by {history.search_ended}")
        if self.best is not None:
            run = self.best.run
            where = f"run {run.key[:SHORT_KEY]}, epoch {self.best.sheet.epoch}: {settings_text(history, run)}"
            lines.append(f"  best     {self.best_text()}   {where}")
        else:
            lines.append("  best     no score yet")
        for index, run in enumerate(self.open):
            words = point_words(run.point, history.axes)
            lines.append(f"  {'open' if index == 0 else '':<7}  {run.key[:SHORT_KEY]}  {words}   {self._where(run)}")
        sessions = f" in {history.sessions} sessions" if history.sessions > 1 else ""
        lines.append(f"  time     {clock(history.wall_s)}{sessions}, last written {self._last()}")
        return "\n".join(lines)

    def _where(self, run: RunHistory) -> str:
        worked = lease.is_held(self.folder.store.run(run.key).path / "lease") is not None
        last = max((record.epoch for record in run.epochs), default=0)
        return f"epoch {last}" + (", being worked on" if worked else "")

    def _last(self) -> str:
        ledger = self.folder.path / FILE
        seconds = time.time() - ledger.stat().st_mtime if ledger.exists() else 0.0
        return f"{clock(seconds)} ago" if seconds < 86_400 else f"{seconds / 86_400:.0f} days ago"


def table(standings: Sequence[Standing]) -> str:
    """One line a study."""
    rows = [("study", "", "runs", "best", "", "time")]
    for each in standings:
        run = "" if each.best is None else each.best.run.key[:SHORT_KEY]
        best = "–" if each.best is None else f"{each.ranked.objective} {number(each.best.summary.mean)}"
        rows.append((each.history.name, each.word, str(len(each.history.runs)), best, run, clock(each.history.wall_s)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
