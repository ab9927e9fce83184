"""The search's history: an Optuna JournalStorage file in the study's folder, which `optuna-dashboard` opens as it is.

Opened by the driver alone, under the study's lease; mended first, since a torn last line plus one append would make it
unreadable for good and a left-over lock costs half a minute.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState

from diffsearch.errors import StoreError
from diffsearch.files import mend_tail
from diffsearch.search import samplers
from diffsearch.search.sequential import Proposal
from diffsearch.space.axes import walk
from diffsearch.space.settings import Axis, Choice, Point

FILE = "journal.log"
INHERITED = "inherited"  # user attribute of the Optuna study: what earlier spaces found out is in it
WARM = "warm"  # user attribute of trials taken over from an earlier space: history, not runs of this search
EPOCHS = "epochs"
FIXED = "fixed_params"  # Optuna's own system attribute of trials whose point was chosen elsewhere


@dataclass(frozen=True, slots=True)
class Trial:
    """What the search asked for, and what it was told."""

    number: int
    proposal: Proposal
    scores: Mapping[int, float] | None  # by epoch, lower is better; None: failed or still running
    finished: bool
    warm: bool
    chosen: bool = False  # not by the sampler
    told_at: float = 0.0  # seconds since the epoch; 0 while it isn't finished


class SearchJournal:
    """Asks Optuna for points, tells it scores, and remembers both.

    Args:
        folder: the study's; None keeps the history in memory alone, for a replay.
        name: of the Optuna study: one for each space, as Optuna refuses a categorical whose choices changed.
        algorithm: the sampler that `ask` uses; `ask_for` needs none.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        axes: Sequence[Axis],
        fixed: Mapping[str, Any],
        algorithm: Choice,
        seed: int,
    ) -> None:
        self._axes, self._fixed, self._algorithm, self._seed = tuple(axes), fixed, algorithm, seed
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self._file: _JournalFile | _Nothing = _Nothing()
        if folder is None:
            self._study = optuna.create_study(study_name=name)
        else:
            self._open(folder / FILE, name)
        self._grid: optuna.samplers.BaseSampler | None = None
        if algorithm.name == samplers.GRID:
            self._grid = samplers.build(algorithm, samplers.seed_of(seed, 0), self._axes)

    def _open(self, path: Path, name: str) -> None:
        _mend(path)
        self._file = file = self._load(path, name)
        if self._is_half_asked():
            file.forget_last_trial()
            self._file = self._load(path, name)

    def _load(self, path: Path, name: str) -> _JournalFile:
        file = _JournalFile(path)
        storage = optuna.storages.JournalStorage(file)
        try:
            self._study = optuna.load_study(storage=storage, study_name=name)
        except KeyError:
            self._study = optuna.create_study(storage=storage, study_name=name)
            file.flush()
        return file

    def _is_half_asked(self) -> bool:
        """Whether the last trial lacks parameters: its decision was cut off while it was written."""
        last = self._study.get_trials(deepcopy=False)[-1:]
        if not last or last[0].state.is_finished() or FIXED in last[0].system_attrs:
            return False
        known = samplers.from_params(self._axes, last[0].params)
        try:
            walk(self._axes, self._fixed, lambda axis: known[axis.path])
        except KeyError:
            return True
        return False

    def trials(self) -> list[Trial]:
        return [self._trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def ask(self) -> Trial:
        """A point from the sampler."""
        self._study.sampler = self._sampler(len(self._study.get_trials(deepcopy=False)))
        trial = self._study.ask()
        point = samplers.suggest_point(trial, self._axes, self._fixed)
        self._file.flush()
        return Trial(trial.number, Proposal(point), None, finished=False, warm=False)

    def ask_for(self, proposal: Proposal) -> Trial:
        """Record a point that was chosen elsewhere as asked for now."""
        self._study.enqueue_trial(samplers.to_params(self._axes, proposal.point), {EPOCHS: proposal.epochs})
        trial = self._study.ask(samplers.distributions(self._axes, proposal.point))
        self._file.flush()
        return Trial(trial.number, proposal, None, finished=False, warm=False)

    def tell(self, number: int, scores: Mapping[int, float] | None, stopped: bool) -> None:
        """The end of a trial. `scores` by epoch, lower is better; None is a failure, which carries no number."""
        if scores is None or not scores:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            trial = optuna.Trial(self._study, self._id(number))
            told = self._study.get_trials(deepcopy=False)[number].intermediate_values  # before a kill
            for epoch, score in sorted(scores.items()):
                if epoch not in told:
                    trial.report(score, epoch)
            if stopped:
                self._study.tell(number, state=TrialState.PRUNED)
            else:
                self._study.tell(number, min(scores.values()))
        self._file.flush()

    @property
    def has_inherited(self) -> bool:
        return bool(self._study.user_attrs.get(INHERITED))

    def set_inherited(self) -> None:
        """To be called when the last run of earlier spaces was taken over: a killed driver may have taken a part."""
        self._study.set_user_attr(INHERITED, True)
        self._file.flush()

    def take_over(self, point: Point, scores: Mapping[int, float]) -> None:
        """Add what an earlier space of this study found out, as history."""
        self._study.add_trial(
            optuna.create_trial(
                params=samplers.to_params(self._axes, point),
                distributions=samplers.distributions(self._axes, point),
                value=min(scores.values()),
                intermediate_values=dict(scores),
                user_attrs={WARM: True},
            )
        )

    def is_exhausted(self) -> bool:
        """Whether a grid has given out its last point."""
        return isinstance(self._grid, samplers.AskedGrid) and self._grid.is_exhausted(self._study)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Of one trial. A grid is the same for every trial: its points are numbered in their shuffled order."""
        return samplers.build(self._algorithm, samplers.seed_of(self._seed, 0 if self._grid else number), self._axes)

    def _id(self, number: int) -> int:
        return int(self._study.get_trials(deepcopy=False)[number]._trial_id)

    def _point_of(self, frozen: FrozenTrial) -> Point:
        """The point of a trial that a dead driver left; of one chosen elsewhere, what was not noted is noted now."""
        if FIXED not in frozen.system_attrs:
            return samplers.from_params(self._axes, frozen.params)
        if frozen.state == TrialState.WAITING:
            self._study._storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
        point = samplers.suggest_point(optuna.Trial(self._study, frozen._trial_id), self._axes, self._fixed)
        self._file.flush()
        return point

    def _trial(self, frozen: FrozenTrial) -> Trial:
        failed = frozen.state == TrialState.FAIL
        finished = frozen.state.is_finished()
        point = samplers.from_params(self._axes, frozen.params) if finished else self._point_of(frozen)
        return Trial(
            number=frozen.number,
            proposal=Proposal(point, frozen.user_attrs.get(EPOCHS)),
            scores=dict(frozen.intermediate_values) if finished and not failed else None,
            finished=finished,
            warm=bool(frozen.user_attrs.get(WARM)),
            chosen=FIXED in frozen.system_attrs,
            told_at=frozen.datetime_complete.timestamp() if frozen.datetime_complete else 0.0,
        )


class _Nothing:
    """Where a history that stays in memory is written to."""

    def flush(self) -> None: ...


class _JournalFile(JournalFileBackend):
    """Optuna's own file, written by one process alone: without its lock, and each decision in one write and one flush.

    A kill then leaves no trial that was asked for but has no parameters yet.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path, self._written = path, len(path.read_bytes().splitlines())
        self._pending: list[dict[str, Any]] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._pending += logs

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        if log_number_from < self._written:
            yield from super().read_logs(log_number_from)
        yield from self._pending[max(0, log_number_from - self._written) :]

    def flush(self) -> None:
        """Write what a decision appended, so that it lasts through a power cut."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in self._pending)
        try:
            with self._path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"can't append to {self._path}: {error.strerror or error}") from error
        self._written, self._pending = self._written + len(self._pending), []

    def forget_last_trial(self) -> None:
        """Cut the file off before the line that made its last trial."""
        lines = self._path.read_bytes().splitlines(keepends=True)
        last = max(
            number for number, line in enumerate(lines) if json.loads(line)["op_code"] == JournalOperation.CREATE_TRIAL
        )
        os.truncate(self._path, sum(len(line) for line in lines[:last]))


def _mend(path: Path) -> None:
    """Drop a torn last line and locks left behind by a killed driver. Only to be called under the study's lease."""
    for lock in path.parent.glob(f"{path.name}*.lock*"):
        lock.unlink(missing_ok=True)
    if path.exists():
        descriptor = os.open(path, os.O_RDWR)
        try:
            mend_tail(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
