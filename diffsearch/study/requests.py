"""From a point of a study to what is asked of a worker: the run, its milestones, how it is sampled and scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from diffsearch.records import CUT, Outcome, State
from diffsearch.scoring.metrics import measure
from diffsearch.space.axes import finalist_points, picked, points_at, searched_points, settings_at
from diffsearch.space.metric_names import parse
from diffsearch.space.settings import Point, StudySpec
from diffsearch.store import RunStore, run_key
from diffsearch.study.identity import asks_hash, space_hash
from diffsearch.study.ledger import Asked, Ledger, Stage
from diffsearch.trial import TrialRequest, missing, stored_evaluation

FRESH_SEEDS = 1000  # finalists are repeated over seeds that no search run has


@dataclass(frozen=True, slots=True)
class Scoring:
    """How the runs of one stage are scored. Scores of different stages are never set beside one another."""

    objective: str  # what the stage ranks by
    metrics: tuple[str, ...]  # the objective first
    samples: int

    @property
    def sign(self) -> float:
        """Times a score of the objective: lower is better."""
        return 1.0 if parse(self.objective).direction == "min" else -1.0


@dataclass(frozen=True)
class Requests:
    """What one session asks for on behalf of a study.

    Args:
        content: content hash of its data set.
        session: of this driver.
        environment: written into each run.json.
        measured: metric → what it is measured with, where that is known without its extractor.
        train_images: of its data set; what an epoch trains.
    """

    spec: StudySpec
    store: RunStore
    content: str
    ledger: Ledger
    session: str
    environment: Mapping[str, str]
    measured: Mapping[str, str] | None = None
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
        if self.measured is not None:
            return self.measured
        metrics = (*self.scoring("full").metrics, *self.scoring("search").metrics)
        return {metric: measure(parse(metric)) for metric in dict.fromkeys(metrics)}

    def scoring(self, stage: Stage) -> Scoring:
        """By the screen in the search of a study that has one, else in full."""
        full, screen = self.spec.evaluation, self.spec.evaluation.screen
        if stage == "search" and screen is not None:
            return Scoring(screen.objective, (screen.objective,), screen.samples)
        finals = self.spec.search.finalists.samples if stage == "finalist" else 0
        return Scoring(full.objective, full.metrics, finals or full.samples)

    def search_run(self, point: Point, repeat: int, epochs: int | None) -> Asked:
        """A run of the search, to every milestone up to `epochs`."""
        milestones = tuple(epoch for epoch in self.spec.milestones if epochs is None or epoch <= epochs)
        return self._asked(point, repeat, "search", milestones)

    def finalist(self, point: Point, repeat: int, epoch: int) -> Asked:
        """A repetition of a finalist over a fresh seed, scored in full where its configuration earned its score."""
        return self._asked(point, FRESH_SEEDS + repeat, "finalist", (epoch,))

    def in_full(self, asked: Asked, pairs: Iterable[tuple[int, int]]) -> Asked:
        """A run of the search again, these (milestone, place of a sampling point) of it scored in full.

        What was asked of it so before is still wanted: to ask twice takes nothing back.
        """
        before = self.ledger.find(asked.asks, "full", asked.run_key)
        only = tuple(sorted({*pairs, *(before.only if before else ())}))
        milestones = tuple(sorted({epoch for epoch, _ in only}))
        samples = self.scoring("full").samples
        wanted = replace(asked, stage="full", milestones=milestones, only=only, samples=samples)
        lacking = missing(self.store.run(asked.run_key), self.request(wanted))
        return replace(wanted, reused_evaluations=before.reused_evaluations if before else len(only) - len(lacking))

    def _asked(self, point: Point, repeat: int, stage: Stage, milestones: tuple[int, ...]) -> Asked:
        spec = self.spec
        settings = settings_at(spec, point, spec.seed + repeat)
        key = run_key(settings, self.content, spec.extensions)
        points = finalist_points(spec, settings) if stage == "finalist" else searched_points(spec, settings)
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
            samples=self.scoring(stage).samples,
            noise_seed=spec.evaluation.seed + repeat,
            reused_epochs=first.reused_epochs if first else len(folder.epochs()),
            reused_evaluations=first.reused_evaluations if first else len(folder.evaluations()),
            only=picked(spec, milestones, len(points)) if stage == "search" else (),
        )

    def request(self, asked: Asked) -> TrialRequest:
        """What a worker is told."""
        return TrialRequest(
            run_key=asked.run_key,
            settings=asked.settings,
            milestones=asked.milestones,
            points=asked.points,
            metrics=self.scoring(asked.stage).metrics,
            samples=asked.samples,
            noise_seed=asked.noise_seed,
            store=self.store.root,
            session=self.session,
            keep=self._keep(asked.stage),
            use=self.spec.use,
            extensions=self.spec.extensions,
            measures=self.measures,
            environment=self.environment,
            only=asked.only,
        )

    def _keep(self, stage: Stage) -> str:
        """Until what a screen lets pass is scored in full, any milestone's checkpoint may be needed for it."""
        screened = self.spec.evaluation.screen is not None and stage != "finalist"
        return "milestones" if screened and self.spec.keep in ("last", "best") else self.spec.keep

    def scores(self, asked: Asked, sign: float) -> dict[int, float]:
        """The best that the store has of a run at each of its milestones: epoch → objective times `sign`."""
        request, folder = self.request(asked), self.store.run(asked.run_key)
        objective = self.scoring(asked.stage).objective
        scores: dict[int, float] = {}
        for epoch in asked.milestones:
            for point in asked.points_at(epoch):
                found = stored_evaluation(folder, request, epoch, point)
                if found is not None:
                    score = sign * found.scores[objective].value
                    scores[epoch] = min(score, scores.get(epoch, score))
        return scores

    def stored_curves(self, sign: float) -> dict[str, dict[int, float]]:
        """Run key → milestone → objective times `sign`: every run in the store that was scored as this study scores.

        Of whatever study and settings, on the same images, at these milestones, sampling points and sample count.
        """
        scoring, curves = self.scoring("search"), dict[str, dict[int, float]]()
        for key, settings, folder in self.store.runs_on(self.content):
            points = searched_points(self.spec, settings)
            only = picked(self.spec, self.spec.milestones, len(points))
            for found in folder.evaluations(self.measures).values():
                wanted = found.epoch in self.spec.milestones and found.sampling in points_at(points, only, found.epoch)
                if wanted and found.samples == scoring.samples and scoring.objective in found.scores:
                    score = sign * found.scores[scoring.objective].value
                    curve = curves.setdefault(key, {})
                    curve[found.epoch] = min(score, curve.get(found.epoch, score))
        return curves

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
