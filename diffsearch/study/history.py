"""A study's history, put together from its folder and the store: what reports, tables and MLflow are made of.

`study.json` says what the study is, the ledger what it asked for and decided, the run folders what came of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffsearch.errors import StoreError
from diffsearch.files import replace_file
from diffsearch.records import Bounds, Evaluation, Outcome, RunHistory, Screened, State, StudyHistory
from diffsearch.space.quantities import parse_constraint
from diffsearch.space.settings import as_json, later, to_plain, to_value
from diffsearch.store import RunFolder, Store, evaluation_key
from diffsearch.study.ledger import Asked, Ledger, Stage

HEADER = "study.json"


@dataclass(frozen=True, slots=True)
class Header:
    """study.json: what the study is, as its last session ran it."""

    name: str
    objective: str
    direction: str
    metrics: tuple[str, ...]
    samples: int
    axes: tuple[str, ...]
    milestones: tuple[int, ...]
    text: str
    source: str
    command: str
    workers: int
    train_images: int
    asks: str
    extensions: Mapping[str, str]
    measures: Mapping[str, str]
    facts: Mapping[str, str]
    bounds: tuple[Bounds, ...] = ()
    objectives: tuple[str, ...] = later(())
    constraints: tuple[str, ...] = later(())  # as a study file spells them
    search_ended: str = ""
    screen: Screened | None = None

    def objective_of(self, stage: Stage) -> str:
        """What a stage ranks by."""
        return self.screen.objective if self.screen is not None and stage == "search" else self.objective

    def write(self, folder: Path) -> None:
        replace_file(folder / HEADER, json.dumps(as_json(self), indent=1, sort_keys=True).encode())

    @classmethod
    def read(cls, folder: Path) -> Header:
        file = folder / HEADER
        if not file.exists():
            known = ", ".join(sorted(path.parent.name for path in folder.parent.glob(f"*/{HEADER}"))) or "none"
            raise StoreError(f"no study '{folder.name}' in {folder.parent.parent}. Studies there: {known}.")
        plain = json.loads(file.read_bytes())
        plain["bounds"] = [Bounds(**bound) for bound in plain["bounds"]]
        plain["screen"] = Screened(**plain["screen"]) if plain.get("screen") else None
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in plain.items()}
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """One study's folder in a store, opened for reading."""

    store: Store
    name: str
    header: Header = field(repr=False)
    ledger: Ledger = field(repr=False)

    @classmethod
    def open(cls, store: Store, name: str) -> StudyFolder:
        folder = store.study(name)
        return cls(store, name, Header.read(folder), Ledger.open(folder))

    @property
    def path(self) -> Path:
        return self.store.study(self.name)

    def asked(self) -> list[Asked]:
        """The runs of the study as its file stands now, in the order in which they were asked for.

        One that is scored in full after a screen is the search's run.
        """
        return [asked for asked in self.ledger.of(self.header.asks) if asked.stage != "full"]

    def history(self) -> StudyHistory:
        runs = [self.run(asked) for asked in self.asked()]
        return assemble(
            self.header,
            runs,
            self.ledger.wall_s,
            len(self.ledger.sessions),
            f"the store ({from_here(str(self.store.root))})",
        )

    def run(self, asked: Asked) -> RunHistory:
        """One run as this study sees it; of a run of the search with what was scored in full of it."""
        if asked.stage == "full":
            asked = self.ledger.find(asked.asks, "search", asked.run_key) or asked
        folder, full = self.store.run(asked.run_key), self.ledger.find(asked.asks, "full", asked.run_key)
        outcome = self.ledger.end_of(asked) or Outcome(State.RUNNING)
        sheets, reused = self.evaluations(asked), asked.reused_evaluations
        screened: tuple[Evaluation, ...] = ()
        attempts = tuple(self.ledger.attempts.get(asked.run_key, ()))
        if self.header.screen is not None and asked.stage == "search":
            screened = sheets
            sheets, reused = (self.evaluations(full), full.reused_evaluations) if full else ((), 0)
            ended = self.ledger.end_of(full) if full else None
            attempts += () if ended is None or ended.ok else (ended,)
        last = outcome.details.get("epoch", asked.milestones[-1])
        return RunHistory(
            key=asked.run_key,
            settings=asked.settings,
            point={path: to_value(to_plain(value)) for path, value in asked.point.items()},
            stage="finalist" if asked.stage == "finalist" else "search",
            order=asked.order,
            outcome=outcome,
            epochs=tuple(record for record in folder.epochs() if record.epoch <= last),
            evaluations=sheets,
            reused_epochs=asked.reused_epochs,
            reused_evaluations=reused,
            attempts=attempts,
            environment=folder.header().get("environment", {}),
            parameters=asked.parameters,
            screened=screened,
            reused_screened=min(asked.reused_evaluations, len(screened)),
        )

    def evaluations(self, asked: Asked) -> tuple[Evaluation, ...]:
        """What the store has of what is asked of a run at its stage: in the order of asking."""
        return tuple(self._evaluations(self.store.run(asked.run_key), asked))

    def _evaluations(self, folder: RunFolder, asked: Asked) -> Iterable[Evaluation]:
        known, objective = folder.evaluations(self.header.measures), self.header.objective_of(asked.stage)
        for epoch in asked.milestones:
            for point in asked.points_at(epoch):
                key = evaluation_key(
                    asked.run_key, epoch, point, asked.samples, asked.noise_seed, self.header.extensions
                )
                if key in known and objective in known[key].scores:
                    yield known[key]


def from_here(address: str) -> str:
    """An address or path without the working directory, which means nothing to another reader."""
    return address.replace(f"{Path.cwd()}/", "")


def assemble(header: Header, runs: Iterable[RunHistory], wall_s: float, sessions: int, read_from: str) -> StudyHistory:
    return StudyHistory(
        name=header.name,
        objective=header.objective,
        direction="min" if header.direction == "min" else "max",
        metrics=header.metrics,
        samples=header.samples,
        axes=header.axes,
        milestones=header.milestones,
        runs=tuple(sorted(runs, key=lambda run: (run.stage != "search", run.order))),
        bounds=header.bounds,
        text=header.text,
        command=header.command,
        wall_s=wall_s,
        sessions=sessions,
        workers=header.workers,
        train_images=header.train_images,
        read_from=read_from,
        facts=header.facts,
        objectives=header.objectives,
        constraints=tuple(c for c in map(parse_constraint, header.constraints) if c is not None),
        search_ended=header.search_ended,
        screen=header.screen,
    )
