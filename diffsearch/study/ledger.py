"""What one study asked for and decided: a JSON-lines file that the driver alone writes, in the study's folder.

    session   a driver began: its command, versions, workers
    asked     the study wants a run: at which point, for which stage, to which milestones, scored how
    attempt   an attempt at a run ended badly: killed, out of memory
    ended     a run's end as this study sees it: finished, stopped early, diverged, failed
    wall      working time of a session so far, and that of its workers together
    search    the search has ended, by what; or, with nothing there, goes on again

Runs themselves lie in the store; *stopped early* is this study's word and stands only here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from diffsearch.files import append_line, read_lines
from diffsearch.records import Outcome, State
from diffsearch.space.axes import points_at
from diffsearch.space.settings import (
    Choice,
    Point,
    RunSettings,
    SamplingPoint,
    as_json,
    later,
    to_plain,
    to_value,
)

FILE = "ledger.jsonl"
Stage = Literal["search", "full", "finalist"]  # full: what a screen let pass of the search's runs, scored in full


@dataclass(frozen=True, slots=True)
class Asked:
    """One run that the study wants, in full: enough to ask for it again."""

    run_key: str
    settings: RunSettings
    point: Point
    stage: Stage
    order: int  # 1-based
    space: str  # hash of axes and fixed settings
    asks: str  # hash of milestones, sampling points, metrics and samples
    milestones: tuple[int, ...]
    points: tuple[SamplingPoint, ...]
    samples: int
    noise_seed: int
    reused_epochs: int
    reused_evaluations: int
    only: tuple[tuple[int, int], ...] = later(())  # (milestone, place in points) that are scored; (): all
    parameters: int | None = later(None)  # of the network, where the study trades them off or bounds them

    def points_at(self, epoch: int) -> tuple[SamplingPoint, ...]:
        """The sampling points that are scored at a milestone."""
        return points_at(self.points, self.only, epoch)

    def to_json(self) -> dict[str, Any]:
        return {**as_json(self), "point": {path: to_plain(value) for path, value in self.point.items()}}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Asked:
        fields = dict(plain)
        fields["settings"] = RunSettings.from_json(plain["settings"])
        fields["point"] = {path: unpack(value) for path, value in plain["point"].items()}
        fields["milestones"] = tuple(plain["milestones"])
        fields["points"] = tuple(SamplingPoint.from_json(point) for point in plain["points"])
        fields["only"] = to_value(plain.get("only", ()))
        return cls(**fields)


def unpack(plain: Any) -> Any:
    """A value of a point back from JSON."""
    if isinstance(plain, Mapping):
        return Choice(plain["name"], tuple((key, to_value(value)) for key, value in plain["options"]))
    return to_value(plain)


@dataclass
class Ledger:
    """The file, read once and kept in step with what is appended; `path` None keeps it in memory alone."""

    path: Path | None
    asked: list[Asked] = field(default_factory=list)
    ended: dict[tuple[str, str, str], Outcome] = field(default_factory=dict)  # (asks, stage, run key) → last end
    attempts: dict[str, list[Outcome]] = field(default_factory=dict)  # run key → attempts that ended badly
    sessions: list[dict[str, Any]] = field(default_factory=list)
    wall: dict[str, float] = field(default_factory=dict)  # session → seconds
    device: dict[str, float] = field(default_factory=dict)  # session → of its workers, times their part of a GPU
    start: dict[str, float] = field(default_factory=dict)  # session → seconds until its first run trained
    search_ended: dict[str, dict[str, str]] = field(default_factory=dict)  # asks → by what, and what that depends on

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        ledger = cls(folder / FILE)
        for line in read_lines(folder / FILE):
            ledger._take(line)
        return ledger

    @property
    def wall_s(self) -> float:
        """Working time over all sessions."""
        return sum(self.wall.values())

    @property
    def device_s(self) -> float:
        """Time of all workers over all sessions; of one that didn't count it, the most that it can have been."""
        most = {each["session"]: each["workers"] for each in self.sessions}
        return sum(self.device.get(session, wall_s * most.get(session, 1)) for session, wall_s in self.wall.items())

    def find(self, asks: str, stage: str, run_key: str) -> Asked | None:
        place = self._index.get((asks, stage, run_key))
        return None if place is None else self.asked[place]

    def first(self, stage: str, run_key: str) -> Asked | None:
        """The first time that this study asked for a run, in whatever form of its file."""
        return self._firsts.get((stage, run_key))

    def count(self, asks: str) -> int:
        """Runs that were asked for so; those that are scored in full, too, are the search's."""
        return self._counts.get(asks, 0)

    def of(self, asks: str) -> Iterator[Asked]:
        return (asked for asked in self.asked if asked.asks == asks)

    def end_of(self, asked: Asked) -> Outcome | None:
        return self.ended.get((asked.asks, asked.stage, asked.run_key))

    def begin_session(self, session: str, facts: Mapping[str, Any]) -> None:
        self._append({"event": "session", "session": session, "at": time.time(), **facts})

    def ask(self, asked: Asked) -> None:
        """Note a run that is asked for, once, and again where more of it is wanted than was asked before.

        A finalist is noted anew whenever it is asked otherwise: at other epochs or sampling points, on other samples.
        """
        before = self.find(asked.asks, asked.stage, asked.run_key)
        more = before is None or before.milestones[-1] < asked.milestones[-1] or not set(asked.only) <= set(before.only)
        if more or (asked.stage == "finalist" and before is not None and _wanted(before) != _wanted(asked)):
            order = asked.order if before is None else before.order
            self._append({"event": "asked", **replace(asked, order=order).to_json()})

    def attempt(self, run_key: str, outcome: Outcome) -> None:
        self._append({"event": "attempt", "run_key": run_key, **_outcome(outcome)})

    def end(self, asked: Asked, outcome: Outcome) -> None:
        where = {"asks": asked.asks, "stage": asked.stage, "run_key": asked.run_key}
        if self.end_of(asked) != outcome:
            self._append({"event": "ended", **where, **_outcome(outcome)})

    def tick(self, session: str, wall_s: float, device_s: float | None = None, start_s: float | None = None) -> None:
        """Note the working time so far.

        Args:
            device_s: of all workers together.
            start_s: that it took until the first of them began to train.
        """
        times = {"wall_s": wall_s, "device_s": device_s, "start_s": start_s}
        known = {name: round(seconds, 3) for name, seconds in times.items() if seconds is not None}
        self._append({"event": "wall", "session": session, **known})

    def end_search(self, asks: str, by: str, stamp: str = "") -> None:
        """Note what ended a search, or with "" that it goes on."""
        before = self.search_ended.get(asks, {"by": "", "stamp": ""})
        if (before["by"], before["stamp"]) != (by, stamp):
            self._append({"event": "search", "asks": asks, "by": by, "stamp": stamp})

    def __post_init__(self) -> None:
        self._index: dict[tuple[str, str, str], int] = {}  # (asks, stage, run key) → place in `asked`
        self._firsts: dict[tuple[str, str], Asked] = {}
        self._counts: dict[str, int] = {}

    def _append(self, line: dict[str, Any]) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.path, line)
        self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        fields = {key: value for key, value in line.items() if key != "event"}
        match line["event"]:
            case "session":
                self.sessions.append(fields)
            case "asked":
                self._take_asked(Asked.from_json(fields))
            case "attempt":
                self.attempts.setdefault(fields["run_key"], []).append(_to_outcome(fields))
            case "ended":
                self.ended[fields["asks"], fields["stage"], fields["run_key"]] = _to_outcome(fields)
            case "wall":
                for times, name in ((self.wall, "wall_s"), (self.device, "device_s"), (self.start, "start_s")):
                    if name in fields:
                        times[fields["session"]] = max(times.get(fields["session"], 0.0), fields[name])
            case "search":
                self.search_ended[fields["asks"]] = {"by": fields["by"], "stamp": fields["stamp"]}

    def _take_asked(self, asked: Asked) -> None:
        where = (asked.asks, asked.stage, asked.run_key)
        self._firsts.setdefault((asked.stage, asked.run_key), asked)
        if where in self._index:
            self.asked[self._index[where]] = asked
            return
        self._index[where] = len(self.asked)
        self.asked.append(asked)
        self._counts[asked.asks] = self._counts.get(asked.asks, 0) + (asked.stage != "full")


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {"state": outcome.state.value, "reason": outcome.reason, "details": to_plain(outcome.details)}


def _to_outcome(fields: Mapping[str, Any]) -> Outcome:
    return Outcome(State(fields["state"]), fields["reason"], fields["details"])


def _wanted(asked: Asked) -> tuple[object, ...]:
    """What of a finalist is scored."""
    return asked.milestones, asked.points, asked.samples
