"""From a point of a study to what is asked of a worker: the run, its milestones, how it is sampled and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from diffsearch.records import CUT, Outcome, State
from diffsearch.scoring.metrics import measure
from diffsearch.space.axes import finalist_points, sampling_points, settings_at
from diffsearch.space.metric_names import parse
from diffsearch.space.settings import Point, StudySpec
from diffsearch.store import Store, run_key
from diffsearch.study.identity import asks_hash, space_hash
from diffsearch.study.ledger import Asked, Ledger
from diffsearch.trial import TrialRequest, stored_evaluation

FRESH_SEEDS = 1000  # finalists are repeated over seeds that no search run has


@dataclass(frozen=True)
class Requests:
    """What one session asks for on behalf of a study.

    Args:
        content: content hash of its data set.
        session: of this driver.
        environment: written into each run.json.
        train_images: of its data set; what an epoch trains.
    """

    spec: StudySpec
    store: Store
    content: str
    ledger: Ledger
    session: str
    environment: Mapping[str, str]
    train_images: int = 0

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

    def finalist(self, point: Point, repeat: int, epoch: int) -> Asked:
        """A repetition of a finalist over a fresh seed, scored in full where its configuration earned its score."""
        return self._asked(point, FRESH_SEEDS + repeat, "finalist", (epoch,))

    def _asked(
        self, point: Point, repeat: int, stage: Literal["search", "finalist"], milestones: tuple[int, ...]
    ) -> Asked:
        spec = self.spec
        settings = settings_at(spec, point, spec.seed + repeat)
        key = run_key(settings, self.content, spec.extensions)
        points, samples = sampling_points(spec, settings), spec.evaluation.samples
        if stage == "finalist":
            points, samples = finalist_points(spec, settings), spec.search.finalists.samples or samples
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
        )

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
        """The best that the store has of a run at each of its milestones: epoch → objective times `sign`."""
        request, folder = self.request(asked), self.store.run(asked.run_key)
        scores: dict[int, float] = {}
        for epoch in asked.milestones:
            for point in asked.points:
                found = stored_evaluation(folder, request, epoch, point)
                if found is not None:
                    score = sign * found.scores[self.spec.evaluation.objective].value
                    scores[epoch] = min(score, scores.get(epoch, score))
        return scores

    def stopped_before(self, asked: Asked, *, by_budget: bool = True) -> Outcome | None:
        """How this study stopped that run earlier, where milestones are as they were then; its `epoch` says when.

        Args:
            by_budget: whether one that was stopped since a budget was used up stays so.
        """
        wanted = (asked.stage, asked.run_key, State.STOPPED_EARLY)
        for (_, stage, key), outcome in self.ledger.ended.items():
            if CUT in outcome.details and not by_budget:
                continue
            if (stage, key, outcome.state) == wanted and tuple(outcome.details["milestones"]) == asked.milestones:
                return outcome
        return None
