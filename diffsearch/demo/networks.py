"""The trained networks of one study: which there are, how they scored, and which of their checkpoints are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from diffsearch import exported
from diffsearch.data.normalise import Normalization
from diffsearch.diffusion import Denoiser
from diffsearch.errors import StoreError
from diffsearch.records import Evaluation, RunHistory, StudyHistory
from diffsearch.report.ranks import STAGES, best_sheet, rankable, sign
from diffsearch.space.settings import SamplingPoint
from diffsearch.store import Store
from diffsearch.study.history import StudyFolder
from diffsearch.training.checkpoint import Checkpoint

HELD = 4  # networks kept in memory


@dataclass(frozen=True, slots=True)
class Network:
    """One track of one checkpoint, ready to draw."""

    denoiser: Denoiser
    normalization: Normalization
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]  # () where it takes no labels
    device: torch.device


class Networks:
    """The runs of a study as its store has them now, the best first.

    Args:
        store: where the study lies.
        name: of the study.

    Raises:
        StoreError: no such study, or it has asked for no run yet.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.read = lru_cache(maxsize=HELD)(self._read)
        self.look()

    def look(self) -> None:
        """Read anew what the study has: it may be running."""
        self.history = StudyFolder.open(self.store, self.name).history()
        self.runs = _best_first(self.history)
        if not self.runs:
            raise StoreError(f"study '{self.name}' has no run yet: `diffsearch run` it first.")

    def run(self, key: str | None) -> RunHistory:
        """The run of that key; raises StoreError where none is chosen or it is gone."""
        found = next((run for run in self.runs if run.key == key), None)
        if found is None:
            raise StoreError(f"study '{self.name}' has no run {key[:6]}." if key else "choose a run.")
        return found

    def kept(self, run: RunHistory) -> tuple[int, ...]:
        """Epochs that it can be drawn from."""
        return self.store.run(run.key).kept()

    def drawable(self, count: int) -> list[RunHistory]:
        """The best so many runs that keep a checkpoint; filled up with others, or the first again, where too few do."""
        found = sorted(self.runs, key=lambda run: not self.kept(run))[:count]  # stable: still the best first
        return [*found, *[found[0]] * (count - len(found))]

    def best(self, run: RunHistory) -> Evaluation | None:
        """Its best evaluation; None where it has no score."""
        sheets = [sheet for sheet in run.evaluations if self.history.objective in sheet.scores]
        return best_sheet(self.history, sheets) if sheets else None

    def scored(self, run: RunHistory, epoch: int, point: SamplingPoint) -> Evaluation | None:
        """The evaluation of just that checkpoint, sampled just so; None where there is none."""
        steps = run.settings.steps
        wanted = epoch, _in_full(point, steps)
        found = (sheet for sheet in run.evaluations if (sheet.epoch, _in_full(sheet.sampling, steps)) == wanted)
        return next(found, None)

    def _read(self, key: str, epoch: int, ema: int) -> Network:
        """Raises StoreError: that checkpoint isn't kept or is torn, or that average wasn't tracked."""
        trained = Checkpoint.read(self.store.run(key).kept_checkpoint(epoch))
        device = exported.best_device()
        denoiser = trained.denoiser(ema, device)
        return Network(denoiser, trained.normalization, trained.image_shape, trained.classes, device)


def _in_full(point: SamplingPoint, steps: int) -> SamplingPoint:
    """The point with its number of steps, also where it means all of them."""
    return replace(point, steps=point.steps or steps)


def _best_first(history: StudyHistory) -> list[RunHistory]:
    """Finalists, then the search's runs, each by score; then those without a score that ranks, in the order asked."""
    ranked: list[RunHistory] = []
    for stage in STAGES:
        pairs = [
            (run, best_sheet(history, sheets).scores[history.objective]) for run, sheets in rankable(history, stage)
        ]
        ranked += [run for run, score in sorted(pairs, key=lambda pair: sign(history) * pair[1].value)]
    return [*ranked, *(run for run in history.runs if run not in ranked)]
