"""From a point of a study to what is asked of a worker: the run, its milestones, how it is sampled and scored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from diffsearch.errors import StoreError
from diffsearch.records import EpochRecord, Evaluation, State
from diffsearch.scoring.metrics import measure
from diffsearch.search.earned import Earned, Judge, breaks
from diffsearch.space.axes import finalist_points, sampling_points, settings_at
from diffsearch.space.metric_names import parse
from diffsearch.space.quantities import COSTS
from diffsearch.space.settings import Point, RunSettings, SamplingPoint, StudySpec
from diffsearch.store import Store, run_key
from diffsearch.study.identity import asks_hash, space_hash
from diffsearch.study.ledger import Asked, Ledger
from diffsearch.training.memory import describe, parameters_of
from diffsearch.training.network import calls_of
from diffsearch.trial import TrialRequest, stored_evaluation

FRESH_SEEDS = 1000  # finalists are repeated over seeds that no search run has


@dataclass(frozen=True)
class Requests:
    """What one session asks for on behalf of a study.

    Args:
        content: content hash of its data set.
        session: of this driver.
        environment: written into each run.json.
        image_shape: of its data set.
        classes: of its data set; a conditional network's parameters hardly depend on them.
    """

    spec: StudySpec
    store: Store
    content: str
    ledger: Ledger
    session: str
    environment: Mapping[str, str]
    image_shape: tuple[int, int, int]
    classes: int = 10

    @cached_property
    def judge(self) -> Judge:
        evaluation = self.spec.evaluation
        return Judge(evaluation.objectives or (evaluation.objective,), self.spec.search.constraints)

    @cached_property
    def space(self) -> str:
        return space_hash(self.spec, self.content)

    @cached_property
    def asks(self) -> str:
        return asks_hash(self.spec, self.content)

    @cached_property
    def measures(self) -> Mapping[str, str]:
        """Metric → what it is measured with. Raises MetricError where an extractor can't be had."""
        return {metric: measure(parse(metric)) for metric in self.spec.evaluation.metrics}

    def search_run(self, point: Point, repeat: int, epochs: int | None) -> Asked:
        """A run of the search, to every milestone up to `epochs`."""
        milestones = tuple(epoch for epoch in self.spec.milestones if epochs is None or epoch <= epochs)
        return self._asked(point, repeat, "search", milestones)

    def finalist(self, point: Point, repeat: int, epochs: tuple[int, ...], sampled: Collection[str] = ()) -> Asked:
        """A repetition of a finalist over a fresh seed, scored in full where its configuration earned its score.

        Args:
            epochs: ascending.
            sampled: sampling points in words, where it is to be scored at these alone.
        """
        asked = self._asked(point, FRESH_SEEDS + repeat, "finalist", epochs)
        kept = tuple(each for each in asked.points if str(each) in sampled)
        return replace(asked, points=kept) if kept else asked

    def _asked(
        self, point: Point, repeat: int, stage: Literal["search", "finalist"], milestones: tuple[int, ...]
    ) -> Asked:
        spec = self.spec
        settings = settings_at(spec, point, spec.seed + repeat)
        key = run_key(settings, self.content, spec.extensions)
        points, samples = sampling_points(spec, settings), spec.evaluation.samples
        if stage == "finalist":
            points, samples = finalist_points(spec, settings), spec.search.finalists.samples or samples
        points = self._affordable(settings, points) or points
        folder = self.store.run(key)
        first = self.ledger.first(stage, key)
        return Asked(
            run_key=key,
            settings=settings,
            point=point,
            stage=stage,
            order=self.ledger.count(self.asks) + 1,
            space=self.space,
            asks=self.asks,
            milestones=milestones,
            points=points,
            samples=samples,
            noise_seed=spec.evaluation.seed + repeat,
            reused_epochs=first.reused_epochs if first else len(folder.epochs()),
            reused_evaluations=first.reused_evaluations if first else len(folder.evaluations()),
            parameters=self._parameters(settings) if self.judge.reads("parameters") else None,
        )

    def _parameters(self, settings: RunSettings) -> int:
        return parameters_of(settings, self.image_shape, self.classes)

    def _affordable(self, settings: RunSettings, points: tuple[SamplingPoint, ...]) -> tuple[SamplingPoint, ...]:
        """Those whose cost, known before they are sampled, keeps the constraints."""
        limits = [each for each in self.spec.search.constraints if each.quantity == "network_calls"]
        if not limits:
            return points
        return tuple(p for p in points if all(each.holds(calls_of(settings, p)) for each in limits))

    def refused(self, asked: Asked) -> Mapping[str, tuple[float, str]]:
        """Constraints that a run breaks whatever comes of it, so that it is never trained: text → (by how much, why).

        Known beforehand are the network's parameters, the least memory that training it needs, and the calls of its
        sampling points, of which one within the bounds is enough.
        """
        found: dict[str, tuple[float, str]] = {}
        for each in self.spec.search.constraints:
            value: float | None = None
            if each.quantity == "parameters":
                value = self._parameters(asked.settings)
            elif each.quantity == "peak_memory_mb" and each.relation.startswith("<"):
                value = describe(asked.settings, self.image_shape, self.classes).memory_mb
            elif each.quantity == "network_calls":
                value = min((calls_of(asked.settings, point) for point in asked.points), key=each.violation)
            if value is not None and not each.holds(value):
                found[str(each)] = each.violation(value), breaks(each, value)
        return found

    def earned(self, asked: Asked, sheet: Evaluation) -> Earned | None:
        """An evaluation as objectives and constraints judge it; None where a score alone says it all."""
        if self.judge.is_plain:
            return None
        found = self.judge.earned(sheet, self._epochs(asked.run_key), asked.parameters)
        if found is None:
            raise StoreError(f"run {asked.run_key[:6]} has a score of epoch {sheet.epoch} and no record of that epoch.")
        return found

    def broken(self, asked: Asked, sheet: Evaluation) -> str:
        """Why a run can't be feasible any more: a cost that only grows is beyond its bound. Empty where none is."""
        growing = tuple(
            each
            for each in self.judge.constraints
            if each.relation.startswith("<") and each.quantity in COSTS and not COSTS[each.quantity].sampled
        )
        return Judge((), growing).broken(sheet, self._epochs(asked.run_key), asked.parameters) if growing else ""

    def _epochs(self, run_key: str) -> tuple[EpochRecord, ...]:
        read = self.judge.reads("peak_memory_mb") or self.judge.reads("training_images")
        return self.store.run(run_key).epochs() if read else ()

    def sheets(self, asked: Asked) -> list[Evaluation]:
        """The evaluations that the store has of what is asked."""
        request, folder = self.request(asked), self.store.run(asked.run_key)
        pairs = ((epoch, point) for epoch in asked.milestones for point in asked.points)
        found = (stored_evaluation(folder, request, epoch, point) for epoch, point in pairs)
        return [sheet for sheet in found if sheet is not None]

    def request(self, asked: Asked) -> TrialRequest:
        """What a worker is told."""
        return TrialRequest(
            run_key=asked.run_key,
            settings=asked.settings,
            milestones=asked.milestones,
            points=asked.points,
            metrics=self.spec.evaluation.metrics,
            samples=asked.samples,
            noise_seed=asked.noise_seed,
            store=self.store.root,
            session=self.session,
            keep=self.spec.keep,
            use=self.spec.use,
            extensions=self.spec.extensions,
            measures=self.measures,
            environment=self.environment,
        )

    def scores(self, asked: Asked, sign: float) -> dict[int, float]:
        """The best that the store has of a run at each of its milestones: epoch → objective times `sign`.

        What breaks a constraint isn't among them.
        """
        scores: dict[int, float] = {}
        for sheet in self.sheets(asked):
            earned = self.earned(asked, sheet)
            if earned is None or earned.feasible:
                score = sign * sheet.scores[self.spec.evaluation.objective].value
                scores[sheet.epoch] = min(score, scores.get(sheet.epoch, score))
        return scores

    def stopped_before(self, asked: Asked) -> int | None:
        """The epoch at which this study stopped that run earlier, where milestones are as they were then."""
        wanted = (asked.stage, asked.run_key, State.STOPPED_EARLY)
        for (_, stage, key), outcome in self.ledger.ended.items():
            if (stage, key, outcome.state) == wanted and tuple(outcome.details["milestones"]) == asked.milestones:
                return int(outcome.details["epoch"])
        return None
