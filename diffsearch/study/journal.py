"""The search's history: an Optuna JournalStorage file in the study's folder, which `optuna-dashboard` opens as it is.

Opened by the driver alone, under the study's lease.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from diffsearch.search import samplers
from diffsearch.search.earned import Earned, Verdict, best_by_epoch
from diffsearch.search.sequential import Proposal
from diffsearch.space.settings import Axis, Choice, Point, to_plain
from diffsearch.study.journal_file import InMemory, JournalFile, mend

FILE = "journal.log"
INHERITED = "inherited"  # user attribute of the Optuna study: what earlier spaces found out is in it
WARM = "warm"  # user attribute of trials taken over from an earlier space: history, not runs of this search
WARMED = "warm_start"  # user attribute of the Optuna study: the sources that it was started from
ELSEWHERE = "elsewhere"  # user attribute of warm trials that are known to the sampler alone: their run key
EVALUATIONS = "evaluations"  # user attribute: all that a run earned, where that is more than a curve of scores
REFUSED = "refused"  # user attribute of trials that were never trained, as a constraint refuses them
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
    evaluations: tuple[Earned, ...] = ()  # where they are more than `scores`: several objectives, or constraints
    refused: bool = False  # never trained: a constraint refuses it
    elsewhere: str = ""  # run key in another store, or of another seed: history for the sampler alone
    told_at: float = 0.0  # seconds since the epoch; 0 while it isn't finished


class SearchJournal:
    """Asks Optuna for points, tells it scores, and remembers both.

    Args:
        folder: the study's; None keeps the history in memory alone, for a replay.
        name: of the Optuna study: one for each space, as Optuna refuses a categorical whose choices changed.
        algorithm: the sampler that `ask` uses; `ask_for` needs none.
        objectives: how many a trial is told of.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        axes: Sequence[Axis],
        fixed: Mapping[str, Any],
        algorithm: Choice,
        seed: int,
        objectives: int = 1,
    ) -> None:
        self._objectives = objectives
        self._axes, self._fixed, self._algorithm, self._seed = tuple(axes), fixed, algorithm, seed
        self._traits = samplers.traits(algorithm)
        self._every_axis = bool(self._traits.get("every_axis"))
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self._genetic = samplers.genetic(algorithm, self._axes)
        self._file: JournalFile | InMemory = InMemory()
        if folder is None:
            self._study = optuna.create_study(study_name=name, directions=["minimize"] * objectives)
        else:
            self._open(folder / FILE, name)
        self._grid: optuna.samplers.BaseSampler | None = None
        if algorithm.name == samplers.GRID:
            self._grid = samplers.build(algorithm, samplers.seed_of(seed, 0), self._axes)

    def _open(self, path: Path, name: str) -> None:
        mend(path)
        self._file = file = self._load(path, name)
        if self._is_half_asked():
            file.forget_last_trial()
            self._file = self._load(path, name)

    def _load(self, path: Path, name: str) -> JournalFile:
        file = JournalFile(path)
        storage = optuna.storages.JournalStorage(file)
        try:
            self._study = optuna.load_study(storage=storage, study_name=name)
        except KeyError:
            directions = ["minimize"] * self._objectives
            self._study = optuna.create_study(storage=storage, study_name=name, directions=directions)
            file.flush()
        return file

    def _is_half_asked(self) -> bool:
        """Whether the last trial lacks parameters: its decision was cut off while it was written."""
        last = self._study.get_trials(deepcopy=False)[-1:]
        if not last or last[0].state.is_finished() or FIXED in last[0].system_attrs:
            return False
        if self._every_axis:
            return any(axis.path not in last[0].params for axis in self._axes)
        try:
            samplers.from_params(self._axes, self._fixed, last[0].params)
        except KeyError:
            return True
        return False

    def trials(self) -> list[Trial]:
        return [self._trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def ask(self) -> Trial:
        """A point from the sampler."""
        self._study.sampler = self._sampler(len(self._study.get_trials(deepcopy=False)))
        trial = self._study.ask()
        point = samplers.suggest_point(trial, self._axes, self._fixed, self._every_axis)
        self._file.flush()
        return Trial(trial.number, Proposal(point), None, finished=False, warm=False)

    def ask_for(self, proposal: Proposal) -> Trial:
        """Record a point that was chosen elsewhere as asked for now."""
        full = self._full(proposal.point)
        self._study.enqueue_trial(samplers.to_params(self._axes, full), {EPOCHS: proposal.epochs})
        trial = self._study.ask(samplers.distributions(self._axes, full))
        if self._genetic is not None:
            self._genetic.get_trial_generation(self._study, trial._cached_frozen_trial)
        self._file.flush()
        return Trial(trial.number, proposal, None, finished=False, warm=False)

    def tell(
        self,
        number: int,
        scores: Mapping[int, float] | None,
        stopped: bool,
        evaluations: Sequence[Earned] = (),
        verdict: Verdict | None = None,
    ) -> None:
        """The end of a trial.

        A run that was stopped is a pruned trial, but where the sampler ignores those or there are several objectives,
        of which Optuna keeps no curve: it has earned its evaluations, and is told as complete.

        Args:
            scores: by epoch, lower is better; None is a failure, which carries no number.
            evaluations: all of the run, where the study has several objectives or constraints.
            verdict: what the sampler is told then; None is a failure.
        """
        trial = optuna.Trial(self._study, self._id(number))
        if verdict is not None:
            trial.set_user_attr(EVALUATIONS, [to_plain(earned) for earned in evaluations])
            self._constrain(number, verdict.constraints)
        if verdict is not None and (self._objectives > 1 or not scores):
            self._study.tell(number, list(verdict.values))
        elif scores is None or not scores:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            told = self._study.get_trials(deepcopy=False)[number].intermediate_values  # before a kill
            for epoch, score in sorted(scores.items()):
                if epoch not in told:
                    trial.report(score, epoch)
            if stopped and not self._traits.get("ignores_pruned"):
                self._study.tell(number, state=TrialState.PRUNED)
            else:
                self._study.tell(number, min(scores.values()))
        self._file.flush()

    def refuse(self, number: int, constraints: Mapping[str, float]) -> None:
        """The end of a trial that is never trained. It carries no score; samplers that read pruned trials learn of it.

        Args:
            constraints: those that it breaks, and by how much.
        """
        optuna.Trial(self._study, self._id(number)).set_user_attr(REFUSED, True)
        self._constrain(number, constraints)
        self._study.tell(number, state=TrialState.PRUNED)
        self._file.flush()

    def _constrain(self, number: int, constraints: Mapping[str, float]) -> None:
        """Note by how much each constraint is broken, where a killed driver didn't."""
        trial = optuna.Trial(self._study, self._id(number))
        for name, violation in constraints.items():
            if name not in trial.constraints:
                trial.set_constraint(name, violation)

    @property
    def warmed(self) -> tuple[str, ...]:
        """The sources that this search was started from."""
        return tuple(self._study.user_attrs.get(WARMED, ()))

    def set_warmed(self, source: str) -> None:
        """To be called when the last run of a source was taken over: a killed driver may have taken a part."""
        self._study.set_user_attr(WARMED, [*self.warmed, source])
        self._file.flush()

    @property
    def has_inherited(self) -> bool:
        return bool(self._study.user_attrs.get(INHERITED))

    def set_inherited(self) -> None:
        """To be called when the last run of earlier spaces was taken over: a killed driver may have taken a part."""
        self._study.set_user_attr(INHERITED, True)
        self._file.flush()

    def take_over(
        self,
        point: Point,
        scores: Mapping[int, float],
        evaluations: Sequence[Earned] = (),
        verdict: Verdict | None = None,
        elsewhere: str = "",
    ) -> None:
        """Add what an earlier space of this study, or another study, found out, as history; arguments as of `tell`."""
        attributes: dict[str, Any] = {WARM: True}
        if elsewhere:
            attributes[ELSEWHERE] = elsewhere
        if verdict is not None:
            attributes[EVALUATIONS] = [to_plain(earned) for earned in evaluations]
        full = self._full(point)
        self._study.add_trial(
            optuna.create_trial(
                params=samplers.to_params(self._axes, full),
                distributions=samplers.distributions(self._axes, full),
                values=[min(scores.values())] if verdict is None else list(verdict.values),
                intermediate_values=dict(scores) if self._objectives == 1 else {},
                user_attrs=attributes,
                constraints=dict(verdict.constraints) if verdict is not None else {},
                system_attrs={self._genetic._get_generation_key(): 0} if self._genetic is not None else {},
            )
        )

    def is_exhausted(self) -> bool:
        """Whether a grid has given out its last point."""
        return isinstance(self._grid, samplers.AskedGrid) and self._grid.is_exhausted(self._study)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Of one trial. A grid is the same for every trial: its points are numbered in their shuffled order."""
        return samplers.build(self._algorithm, samplers.seed_of(self._seed, 0 if self._grid else number), self._axes)

    def _full(self, point: Point) -> Point:
        return samplers.on_every_axis(self._axes, point) if self._every_axis else point

    def _id(self, number: int) -> int:
        return int(self._study.get_trials(deepcopy=False)[number]._trial_id)

    def _point_of(self, frozen: FrozenTrial) -> Point:
        """The point of a trial that a dead driver left; of one chosen elsewhere, what was not noted is noted now."""
        if FIXED not in frozen.system_attrs:
            return samplers.from_params(self._axes, self._fixed, frozen.params)
        if frozen.state == TrialState.WAITING:
            self._study._storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
        trial = optuna.Trial(self._study, frozen._trial_id)
        point = samplers.suggest_point(trial, self._axes, self._fixed, self._every_axis)
        self._file.flush()
        return point

    def _trial(self, frozen: FrozenTrial) -> Trial:
        failed = frozen.state == TrialState.FAIL
        finished = frozen.state.is_finished()
        point = samplers.from_params(self._axes, self._fixed, frozen.params) if finished else self._point_of(frozen)
        evaluations = tuple(Earned.from_json(plain) for plain in frozen.user_attrs.get(EVALUATIONS, ()))
        curve = best_by_epoch(evaluations) if evaluations else dict(frozen.intermediate_values)
        return Trial(
            number=frozen.number,
            proposal=Proposal(point, frozen.user_attrs.get(EPOCHS)),
            scores=curve if finished and not failed else None,
            finished=finished,
            warm=bool(frozen.user_attrs.get(WARM)),
            chosen=FIXED in frozen.system_attrs,
            evaluations=evaluations if finished and not failed else (),
            refused=bool(frozen.user_attrs.get(REFUSED)),
            elsewhere=str(frozen.user_attrs.get(ELSEWHERE, "")),
            told_at=frozen.datetime_complete.timestamp() if frozen.datetime_complete else 0.0,
        )
