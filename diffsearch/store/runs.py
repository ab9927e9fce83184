"""The store: the directory where runs lie by their key, and the only truth.

    <store>/runs/<run key>/          run.json  lease  latest.safetensors  epoch-00020.safetensors
                                     epochs.jsonl  evaluations.jsonl  outcome.json  samples/<evaluation key>.png
    <store>/studies/<name>/          what one study asked for and decided (see diffsearch.study)
    <store>/references/              reference statistics and bounds (see diffsearch.scoring)

Every file has one writer at a time, the holder of the folder's lease; but nothing rests on that alone. Whole files are
replaced atomically, an append first truncates a torn last line, a writer whose lease was taken is refused at its
next write, and readers keep the first line of each key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from diffsearch.errors import StoreError
from diffsearch.files import append_line, read_lines, replace_file
from diffsearch.records import EpochRecord, Evaluation, Outcome, State
from diffsearch.space.settings import RunSettings
from diffsearch.store.keys import EVALUATION_STAGE, TRAINING_STAGE
from diffsearch.store.lease import Lease

CURVES = "epochs.jsonl"
SCORES = "evaluations.jsonl"


class RunRecords(Protocol):
    """What a study reads of a run."""

    def epochs(self) -> tuple[EpochRecord, ...]: ...

    def evaluations(self, measures: Mapping[str, str] | None = None) -> dict[str, Evaluation]: ...

    def outcome(self) -> Outcome | None: ...


class RunStore(Protocol):
    """Where a study reads of runs: a `Store`, or what a replay has simulated so far."""

    @property
    def root(self) -> Path: ...

    def run(self, key: str) -> RunRecords: ...

    def runs_on(self, content: str) -> Iterator[tuple[str, RunSettings, RunRecords]]: ...


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run. Reading needs nothing; each write needs the lease."""

    key: str
    path: Path

    @property
    def latest(self) -> Path:
        """Checkpoint with the optimiser: enough to go on."""
        return self.path / "latest.safetensors"

    def checkpoint(self, epoch: int) -> Path:
        """Checkpoint of one epoch: weights and every EMA track, enough to sample."""
        return self.path / f"epoch-{epoch:05d}.safetensors"

    def kept(self) -> tuple[int, ...]:
        """The epochs whose checkpoint is there, ascending."""
        return tuple(sorted(int(file.stem.removeprefix("epoch-")) for file in self.path.glob("epoch-*.safetensors")))

    def kept_checkpoint(self, epoch: int) -> Path:
        """The checkpoint of an epoch; raises StoreError, with those that are kept, where it isn't there."""
        kept = self.kept()
        if epoch not in kept:
            epochs = ", ".join(map(str, kept)) or "none"
            raise StoreError(f"run {self.key[:6]} has no checkpoint of epoch {epoch}. Kept: {epochs}.")
        return self.checkpoint(epoch)

    def picture(self, evaluation: str) -> Path:
        return self.path / "samples" / f"{evaluation}.png"

    def lease(self, session: str) -> Lease:
        """Claim the right to write here, waiting while a living process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        return Lease.wait_for(self.path / "lease", session)

    def header(self) -> dict[str, Any]:
        """run.json: what was hashed, in full, the stage versions and the environment; {} for a run never begun."""
        file = self.path / "run.json"
        return json.loads(file.read_bytes()) if file.exists() else {}

    def begin(self, lease: Lease, settings: RunSettings, data_content: str, environment: Mapping[str, str]) -> None:
        if not self.header():
            head = {
                "key": self.key,
                "settings": settings.to_json(),
                "data_content": data_content,
                "stages": {"training": TRAINING_STAGE, "evaluation": EVALUATION_STAGE},
                "environment": dict(environment),
            }
            lease.check()
            replace_file(self.path / "run.json", json.dumps(head, indent=1, sort_keys=True).encode())

    def settings(self) -> RunSettings:
        header = self.header()
        if not header:
            raise StoreError(f"no run {self.key} in {self.path.parent}. `diffsearch table` lists the runs of a study.")
        return RunSettings.from_json(header["settings"])

    def epochs(self) -> tuple[EpochRecord, ...]:
        first: dict[int, EpochRecord] = {}
        for line in read_lines(self.path / CURVES):
            first.setdefault(line["epoch"], EpochRecord(**line))
        return tuple(first[epoch] for epoch in sorted(first))

    def add_epoch(self, lease: Lease, record: EpochRecord) -> None:
        lease.check()
        append_line(self.path / CURVES, record.to_json())

    def evaluations(self, measures: Mapping[str, str] | None = None) -> dict[str, Evaluation]:
        """Evaluation key → evaluation; of each metric the first line counts, a later line may add metrics.

        Args:
            measures: metric → what it must have been measured with; scores of another measure are left out.
        """
        merged: dict[str, Evaluation] = {}
        for line in read_lines(self.path / SCORES):
            kept = {
                name: score
                for name, score in line["scores"].items()
                if measures is None or measures.get(name, score["extractor"]) == score["extractor"]
            }
            if not kept:
                continue
            new = Evaluation.from_json({**line, "scores": kept})
            old = merged.get(new.key)
            merged[new.key] = new if old is None else replace(old, scores={**new.scores, **old.scores})
        return merged

    def add_evaluation(self, lease: Lease, evaluation: Evaluation) -> None:
        lease.check()
        append_line(self.path / SCORES, evaluation.to_json())

    def outcome(self) -> Outcome | None:
        """The run's own end: diverged, or None. (Finished and stopped are a study's words for it.)"""
        file = self.path / "outcome.json"
        if not file.exists():
            return None
        plain = json.loads(file.read_bytes())
        return Outcome(State(plain["state"]), plain["reason"], plain["details"])

    def set_outcome(self, lease: Lease, outcome: Outcome) -> None:
        lease.check()
        plain = {"state": outcome.state.value, "reason": outcome.reason, "details": dict(outcome.details)}
        replace_file(self.path / "outcome.json", json.dumps(plain, sort_keys=True).encode())


@dataclass(frozen=True, slots=True)
class Store:
    """A directory on a disk that all workers see."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Store:
        """Make the directory if need be; raises StoreError where it can't be written."""
        root = root.expanduser().absolute()
        try:
            (root / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store {root}: {error.strerror}. Choose another with --store or `store:`.") from error
        if not os.access(root / "runs", os.W_OK):
            raise StoreError(f"store {root} is not writable. Choose another with --store or `store:`.")
        return cls(root)

    @property
    def references(self) -> Path:
        return self.root / "references"

    def study(self, name: str) -> Path:
        return self.root / "studies" / name

    def studies(self) -> list[str]:
        folder = self.root / "studies"
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def run(self, key: str) -> RunFolder:
        return RunFolder(key, self.root / "runs" / key)

    def keys(self) -> list[str]:
        return sorted(path.name for path in (self.root / "runs").iterdir() if (path / "run.json").exists())

    def runs_on(self, content: str) -> Iterator[tuple[str, RunSettings, RunFolder]]:
        """(key, settings, folder) of every run on a data set, by its content."""
        for key in self.keys():
            folder = self.run(key)
            if folder.header()["data_content"] == content:
                yield key, folder.settings(), folder

    def find(self, prefix: str) -> RunFolder:
        """The run whose key begins so; raises StoreError for none and for several."""
        found = [key for key in self.keys() if key.startswith(prefix)]
        if len(found) != 1:
            what = "no run" if not found else f"{len(found)} runs"
            raise StoreError(f"{what} in {self.root} with a key that begins with '{prefix}'.")
        return self.run(found[0])
