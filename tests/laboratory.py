"""A study that is small enough to run in a test, and where tests run it."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from diffsearch.records import Outcome, StudyHistory
from diffsearch.space.load import loads
from diffsearch.space.settings import StudySpec
from diffsearch.store import Store
from diffsearch.study.conductor import Task
from diffsearch.study.driver import Summary, run_study
from diffsearch.study.history import StudyFolder
from diffsearch.study.observer import Nobody
from diffsearch.trial import Item, Scored, Trained

NO_MLFLOW = "http://127.0.0.1:1"  # refuses at once: a study goes on without it, and most tests have no use for it

TINY_STUDY: dict[str, Any] = {
    "name": "tiny",
    "data": {"dataset": "mnist-5k", "images": 200},
    "model": {"kind": "unet", "channels": [4]},
    "diffusion": {"steps": 2, "noise_process": "linear-noise"},
    "training": {
        "loss": ["x0-l2", "v-l2"],
        "batch_size": 100,
        "epochs": [1, 2],
        "ema_half_life": [0, 100],
        "precision": "fp32",
    },
    "sampling": {"sampler": "ancestral", "ema": 0},
    "evaluation": {"objective": "fd-digits", "metrics": ["fd-digits"], "samples": 70},
    "search": {"algorithm": "grid"},
}


class Laboratory:
    """Runs tiny studies in one process, without Ray, in a store of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder / "store")
        self.trained: list[tuple[str, int]] = []  # (run key, epoch) of every epoch trained, in order
        self.scored: list[str] = []  # keys of evaluations made
        self.notes: list[str] = []

    def spec(self, changes: Mapping[str, Any] | None = None, *overrides: str) -> StudySpec:
        """The tiny study with changes: dotted path → value; None takes a key away."""
        plain = copy.deepcopy(TINY_STUDY)
        for path, value in (changes or {}).items():
            *sections, key = path.split(".")
            place = plain
            for section in sections:
                place = place.setdefault(section, {})
            if value is None:
                place.pop(key, None)
            else:
                place[key] = value
        return loads(yaml.safe_dump(plain, sort_keys=False), "tiny.yaml", overrides)

    def run(self, changes: Mapping[str, Any] | StudySpec | None = None, **options: Any) -> Summary:
        """Run a study to its end and remember what it computed (since the last call)."""
        spec = changes if isinstance(changes, StudySpec) else self.spec(changes)
        self.trained, self.scored, self.notes = [], [], []
        given = {"workers": 0, "tracking_uri": NO_MLFLOW, "observer": _Watch(self), **options}
        return run_study(spec, self.store, command="diffsearch run tiny.yaml", **given)

    def run_and_die(self, changes: Mapping[str, Any] | StudySpec | None, items: int) -> bool:
        """Run a study in a process that is gone, without a word, after so many items. True if it came to that."""
        child = os.fork()
        if child == 0:
            try:
                self.run(changes, observer=_Dying(self, items))
                os._exit(0)
            except BaseException:  # noqa: BLE001 - a forked child must not run the rest of the tests
                traceback.print_exc()
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9), f"the study ended with code {code}"
        return code == 9

    def history(self, name: str = "tiny") -> StudyHistory:
        return StudyFolder.open(self.store, name).history()

    def table(self, name: str = "tiny") -> list[dict[str, Any]]:
        """One row an evaluation, in the order in which runs were asked for, without what a clock measured."""
        return [
            {"stage": run.stage, "order": run.order, "state": str(run.outcome.state), **_timeless(line.to_json())}
            for run in self.history(name).runs
            for line in run.evaluations
        ]

    def checkpoints(self) -> dict[str, str]:
        """File → hash of each checkpoint in the store."""
        files = sorted((self.store.root / "runs").glob("*/*.safetensors"))
        return {f"{file.parent.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def lines(self) -> dict[str, list[str]]:
        """Run key → its evaluation lines as they are on disk, but for seconds."""
        return {
            key: [
                json.dumps(_timeless(json.loads(line)))
                for line in (self.store.run(key).path / "evaluations.jsonl").read_text().splitlines()
            ]
            for key in self.store.keys()  # noqa: SIM118
            if (self.store.run(key).path / "evaluations.jsonl").exists()
        }


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in ("sampling_s", "scoring_s")}


class _Watch(Nobody):
    def __init__(self, laboratory: Laboratory) -> None:
        self._laboratory = laboratory

    def heard(self, task: Task, said: Item | Outcome | None) -> None:
        if isinstance(said, Trained):
            self._laboratory.trained.append((task.asked.run_key, said.record.epoch))
        if isinstance(said, Scored) and not said.reused:
            self._laboratory.scored.append(said.evaluation.key)

    def note(self, text: str) -> None:
        self._laboratory.notes.append(text)


class _Dying(_Watch):
    def __init__(self, laboratory: Laboratory, items: int) -> None:
        super().__init__(laboratory)
        self._left = items

    def heard(self, task: Task, said: Item | Outcome | None) -> None:
        self._left -= 1
        if self._left < 0:
            os._exit(9)
