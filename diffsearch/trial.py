"""One run, from wherever the store has it to where a study wants it: train → sample → score, milestone by milestone.

`run_trial` is a generator: one item per epoch, batch of samples and evaluation, then an outcome. It knows neither
Ray nor MLflow, keeps nothing in memory that the store doesn't hold, and can be closed between any two items.
"""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from PIL import Image
from torch import nn

from diffsearch import registry
from diffsearch.data.datasets import ImageData
from diffsearch.data.datasets import load as load_data
from diffsearch.data.pixels import grid
from diffsearch.diffusion.sampling import sample
from diffsearch.errors import Diverged
from diffsearch.files import replace_file
from diffsearch.records import BY_MACHINE, EpochRecord, Evaluation, Outcome, State
from diffsearch.scoring.metrics import score
from diffsearch.space.axes import points_at
from diffsearch.space.metric_names import parse
from diffsearch.space.settings import RunSettings, SamplingPoint, as_json, later, to_value
from diffsearch.store import Lease, LeaseLost, RunFolder, RunRecords, Store, evaluation_key
from diffsearch.training import checkpoint
from diffsearch.training.loop import TrainingState, start, train
from diffsearch.training.memory import resident_mb

SAVE_EVERY_S = 30.0
SAMPLING_BATCH = 250  # fixed: a network's rounding changes with the size of its batch
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EROFS)
GRID = (8, 16)  # rows and columns of the picture kept with each evaluation


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """What a study wants of one run. Plain data: it travels to the worker as JSON."""

    run_key: str
    settings: RunSettings
    milestones: tuple[int, ...]
    points: tuple[SamplingPoint, ...]
    metrics: tuple[str, ...]
    samples: int
    noise_seed: int
    store: Path
    session: str  # of the driver
    keep: str = "milestones"
    use: tuple[Path, ...] = ()
    extensions: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, str] = field(default_factory=dict)  # metric → what it is measured with
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_limit_mb: float | None = None
    only: tuple[tuple[int, int], ...] = later(())  # (milestone, place in points) that are scored; (): all

    def to_json(self) -> dict[str, Any]:
        return as_json(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> TrialRequest:
        fields = dict(plain)
        fields["settings"] = RunSettings.from_json(plain["settings"])
        fields["milestones"] = tuple(plain["milestones"])
        fields["points"] = tuple(SamplingPoint.from_json(point) for point in plain["points"])
        fields["metrics"] = tuple(plain["metrics"])
        fields["store"] = Path(plain["store"])
        fields["use"] = tuple(Path(path) for path in plain["use"])
        fields["only"] = to_value(plain.get("only", ()))
        return cls(**fields)

    def points_at(self, epoch: int) -> tuple[SamplingPoint, ...]:
        """The sampling points that are scored at a milestone."""
        return points_at(self.points, self.only, epoch)

    def evaluation_key(self, epoch: int, point: SamplingPoint) -> str:
        return evaluation_key(self.run_key, epoch, point, self.samples, self.noise_seed, self.extensions)


@dataclass(frozen=True, slots=True)
class Trained:
    """An epoch was trained."""

    record: EpochRecord


@dataclass(frozen=True, slots=True)
class Sampled:
    """A batch of images was drawn."""

    epoch: int
    done: int
    total: int
    images_per_s: float


@dataclass(frozen=True, slots=True)
class Scored:
    """An evaluation is in the store; `completes` says that the milestone has no other left."""

    evaluation: Evaluation
    completes: bool
    reused: bool


Item: TypeAlias = Trained | Sampled | Scored


def stored_evaluation(folder: RunRecords, request: TrialRequest, epoch: int, point: SamplingPoint) -> Evaluation | None:
    """The evaluation, if the store has it with every metric that is asked for."""
    found = folder.evaluations(request.measures).get(request.evaluation_key(epoch, point))
    return found if found is not None and set(request.metrics) <= set(found.scores) else None


def missing(folder: RunRecords, request: TrialRequest) -> list[tuple[int, SamplingPoint]]:
    """(epoch, sampling point) pairs that the store can't answer."""
    known = folder.evaluations(request.measures)
    wanted = set(request.metrics)
    return [
        (epoch, point)
        for epoch in request.milestones
        for point in request.points_at(epoch)
        if (found := known.get(request.evaluation_key(epoch, point))) is None or not wanted <= set(found.scores)
    ]


def run_trial(request: TrialRequest, device: torch.device) -> Generator[Item, None, Outcome]:
    """Bring one run to its last milestone.

    Yields:
        Each epoch trained, batch sampled and evaluation made (or found), in order.

    Returns:
        The outcome: finished, diverged, out of memory, or failed with its traceback. Never raises for a fault of the
        run itself; a lease that was lost to another writer ends as killed.
    """
    folder = Store.open(request.store).run(request.run_key)
    try:
        for path in request.use:
            registry.use(path)
        with folder.lease(request.session) as lease:
            ended = folder.outcome()
            if ended is not None and ended.details.get("epoch", 0) <= request.milestones[-1]:
                return ended
            data = load_data(request.settings.dataset)
            folder.begin(lease, request.settings, data.content, request.environment)
            yield from _Work(request, folder, lease, data, device).items()
        return Outcome(State.FINISHED)
    except Diverged as error:
        return _diverged(error)
    except LeaseLost as error:
        return Outcome(State.KILLED, str(error))
    except _MemoryExceeded as error:
        return Outcome(State.OUT_OF_MEMORY, str(error))
    except Exception as error:  # noqa: BLE001 - a run's fault is an outcome: raised, it would reach Ray's retry
        if _is_out_of_memory(error):
            return Outcome(State.OUT_OF_MEMORY, str(error).splitlines()[0])
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        details: dict[str, Any] = {"traceback": traceback.format_exc()}
        return Outcome(State.FAILED, reason, details | ({BY_MACHINE: True} if _is_of_the_machine(error) else {}))


def _diverged(error: Diverged) -> Outcome:
    return Outcome(State.DIVERGED, str(error), {"epoch": error.epoch})


class _MemoryExceeded(Exception):
    pass


def _is_of_the_machine(error: BaseException | None) -> bool:
    """Whether a disk refused."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)
    )


@dataclass
class _Work:
    """The state of one trial between two items."""

    request: TrialRequest
    folder: RunFolder
    lease: Lease
    data: ImageData
    device: torch.device
    state: TrainingState | None = None
    saved_at: float = 0.0

    def items(self) -> Iterator[Item]:
        recorded = {record.epoch for record in self.folder.epochs()}
        known = self.folder.evaluations(self.request.measures)
        for milestone in self.request.milestones:
            keys = {self.request.evaluation_key(milestone, point): point for point in self.request.points_at(milestone)}
            wanted = set(self.request.metrics)
            lacking = [key for key in keys if key not in known or not wanted <= set(known[key].scores)]
            if lacking:
                yield from self._train_to(milestone, recorded)
            for number, (key, point) in enumerate(keys.items(), start=1):
                reused = key not in lacking
                if not reused:
                    known[key] = yield from self._evaluate(key, milestone, point)
                yield Scored(known[key], completes=number == len(keys), reused=reused)
            self._thin_out(milestone, known)

    def _train_to(self, milestone: int, recorded: set[int]) -> Iterator[Item]:
        """Make sure that the checkpoint of a milestone is there, training on from the deepest one that serves."""
        if self.folder.checkpoint(milestone).exists():
            return
        state = self._state_before(milestone)
        try:
            for record in train(state, self.data, milestone):
                self._check_memory()
                if record.epoch not in recorded:
                    self.folder.add_epoch(self.lease, record)
                    recorded.add(record.epoch)
                self._save_latest(state, due=record.epoch == milestone)
                if self.request.keep == "all" and record.epoch < milestone:
                    self._save_epoch(state)
                yield Trained(record)
            self._save_epoch(state)
        except Diverged as error:
            self.folder.set_outcome(self.lease, _diverged(error))
            raise

    def _state_before(self, milestone: int) -> TrainingState:
        if self.state is not None and self.state.epoch <= milestone:
            return self.state
        self.state = start(self.request.settings, self.request.run_key, self.data, self.device)
        if self.folder.latest.exists():
            deepest = checkpoint.Checkpoint.read(self.folder.latest)
            if deepest.epoch <= milestone:
                checkpoint.load(self.state, self.folder.latest)
        self.saved_at = time.monotonic()
        return self.state

    def _save_epoch(self, state: TrainingState) -> None:
        """The checkpoint to sample from; after `latest`, so that no kill leaves it ahead of that."""
        self.lease.check()
        checkpoint.save(state, self.folder.checkpoint(state.epoch), with_optimizer=False)

    def _save_latest(self, state: TrainingState, due: bool) -> None:
        """After each epoch or 30 s, whichever is later, and at milestones; never over a deeper one."""
        if not due and time.monotonic() - self.saved_at < SAVE_EVERY_S:
            return
        if self.folder.latest.exists() and checkpoint.Checkpoint.read(self.folder.latest).epoch >= state.epoch:
            return
        self.lease.check()
        checkpoint.save(state, self.folder.latest, with_optimizer=True)
        self.saved_at = time.monotonic()

    def _evaluate(self, key: str, epoch: int, point: SamplingPoint) -> Generator[Item, None, Evaluation]:
        request = self.request
        trained = checkpoint.Checkpoint.read(self.folder.checkpoint(epoch))
        denoiser = trained.denoiser(point.ema, self.device)
        began = time.monotonic()
        batches: list[torch.Tensor] = []
        calls: list[int] = []  # one entry a call of the network, each for a whole batch
        counting = cast(nn.Module, denoiser.network).register_forward_pre_hook(lambda *_: calls.append(1))
        done = 0
        shape = (request.samples, *self.data.image_shape)
        asked = (point.sampler, point.steps, shape, request.noise_seed, SAMPLING_BATCH, self.device, point.guidance)
        for batch in sample(denoiser, *asked):
            batches.append(trained.normalization.decode(batch).cpu())
            done += len(batch)
            self._check_memory()
            yield Sampled(epoch, done, request.samples, done / (time.monotonic() - began))
        counting.remove()
        images = torch.cat(batches)
        sampling_s = time.monotonic() - began
        scores = score(images.numpy(), request.metrics, self.data, Store(request.store).references)
        evaluation = Evaluation(
            key=key,
            run_key=request.run_key,
            epoch=epoch,
            sampling=point,
            samples=request.samples,
            noise_seed=request.noise_seed,
            scores=scores,
            network_calls=request.samples * len(calls) // len(batches),
            sampling_s=round(sampling_s, 3),
            scoring_s=round(time.monotonic() - began - sampling_s, 3),
        )
        self.lease.check()
        replace_file(self.folder.picture(key), png_grid(images[: GRID[0] * GRID[1]]))
        self.folder.add_evaluation(self.lease, evaluation)
        return evaluation

    def _check_memory(self) -> None:
        limit = self.request.memory_limit_mb
        if limit is not None and (used := resident_mb()) > limit:
            raise _MemoryExceeded(f"this worker holds {used:,.0f} MB; its share of the machine is {limit:,.0f} MB")

    def _thin_out(self, milestone: int, known: Mapping[str, Evaluation]) -> None:
        """Leave the checkpoint of this milestone, and with `keep: best` that of the best one so far."""
        if self.request.keep not in ("last", "best"):
            return
        stay = {milestone}
        if self.request.keep == "best":
            stay.add(self._best_epoch(known, milestone))
        for epoch in self.request.milestones:
            if epoch < milestone and epoch not in stay:
                self.folder.checkpoint(epoch).unlink(missing_ok=True)

    def _best_epoch(self, known: Mapping[str, Evaluation], until: int) -> int:
        """The milestone with the best score of the objective, which is the first of the metrics."""
        objective = self.request.metrics[0]
        sign = -1 if parse(objective).direction == "max" else 1
        scored = [
            (sign * known[key].scores[objective].value, epoch)
            for epoch in self.request.milestones
            if epoch <= until
            for key in (self.request.evaluation_key(epoch, point) for point in self.request.points_at(epoch))
            if key in known
        ]
        return min(scored)[1]


def png_grid(images: torch.Tensor, columns: int = GRID[1]) -> bytes:
    """(N, C, H, W) uint8 images as one PNG, `columns` a row, a pixel of white between them."""
    file = BytesIO()
    Image.fromarray(grid(images.numpy(), columns)).save(file, format="PNG")
    return file.getvalue()
