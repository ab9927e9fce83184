"""From a point of a study to what is asked of a worker: the run, its milestones, how it is sampled and scored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from diffsearch.errors import StoreError
from diffsearch.records import CUT, EpochRecord, Evaluation, Outcome, State
from diffsearch.scoring.metrics import measure
from diffsearch.search.earned import Earned, Judge, breaks
from diffsearch.space.axes import finalist_points, picked, points_at, sampling_points, searched_points, settings_at
from diffsearch.space.metric_names import parse
from diffsearch.space.quantities import COSTS
from diffsearch.space.settings import Point, RunSettings, SamplingPoint, StudySpec
from diffsearch.store import RunStore, run_key
from diffsearch.study.identity import asks_hash, space_hash
from diffsearch.study.ledger import Asked, Ledger, Stage
from diffsearch.training.memory import describe, parameters_of
from diffsearch.training.network import calls_of
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
        image_shape: of its data set; what parameters and memory are counted for.
        classes: of its data set; a conditional network's parameters hardly depend on them.
        train_images: of its data set; what an epoch trains.
    """

    spec: StudySpec
    store: RunStore
    content: str
    ledger: Ledger
    session: str
    environment: Mapping[str, str]
    measured: Mapping[str, str] | None = None
    image_shape: tuple[int, int, int] = field(kw_only=True)
    classes: int = 10
    train_images: int = 0

    @cached_property
    def judge(self) -> Judge:
        """What judges evaluations of the search."""
        objectives = self.spec.evaluation.objectives or (self.scoring("search").objective,)
        return Judge(objectives, self.spec.search.constraints)

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

    def is_final_seed(self, seed: int) -> bool:
        """Whether this study repeats its finalists over that training seed: no score of it may choose one."""
        finals = self.spec.search.finalists
        return finals.top > 0 and 0 <= seed - self.spec.seed - FRESH_SEEDS < finals.repeats

    def finalist(self, point: Point, repeat: int, epochs: tuple[int, ...], sampled: Collection[str] = ()) -> Asked:
        """A repetition of a finalist over a fresh seed, scored in full where its configuration earned its score.

        Args:
            epochs: ascending.
            sampled: sampling points in words, where it is to be scored at these alone.
        """
        asked = self._asked(point, FRESH_SEEDS + repeat, "finalist", epochs)
        kept = tuple(each for each in asked.points if str(each) in sampled)
        return replace(asked, points=kept) if kept else asked

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
        points = self.repeated(settings) if stage == "finalist" else self.searched(settings)
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
            parameters=self._parameters(settings) if self.judge.reads("parameters") else None,
        )

    def _parameters(self, settings: RunSettings) -> int:
        return parameters_of(settings, self.image_shape, self.classes)

    def searched(self, settings: RunSettings) -> tuple[SamplingPoint, ...]:
        """The sampling points that the search scores, of those that the constraints allow; all, where they allow none.

        Where finalists alone are swept it is the base point: the first of them.
        """
        swept = sampling_points(self.spec, settings)
        return searched_points(self.spec, self._affordable(settings, swept) or swept)

    def repeated(self, settings: RunSettings) -> tuple[SamplingPoint, ...]:
        """The sampling points of a finalist that the constraints allow; where they allow none, the search's."""
        return self._affordable(settings, finalist_points(self.spec, settings)) or self.searched(settings)

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

    def is_refused(self, point: Point) -> bool:
        """Whether a constraint refuses a point before it is trained."""
        return bool(self.spec.search.constraints) and bool(self.refused(self.search_run(point, 0, None)))

    def earned(self, asked: Asked, sheet: Evaluation) -> Earned | None:
        """An evaluation as objectives and constraints judge it; None where a score alone says it all."""
        if self.judge.is_plain:
            return None
        judge = self.judge
        if not judge.several:
            judge = replace(judge, objectives=(self.scoring(asked.stage).objective,))
        found = judge.earned(sheet, self._epochs(asked.run_key), asked.parameters)
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
        pairs = ((epoch, point) for epoch in asked.milestones for point in asked.points_at(epoch))
        found = (stored_evaluation(folder, request, epoch, point) for epoch, point in pairs)
        return [sheet for sheet in found if sheet is not None]

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
        """The best that the store has of a run at each of its milestones: epoch → objective times `sign`.

        What breaks a constraint isn't among them.
        """
        objective = self.scoring(asked.stage).objective
        scores: dict[int, float] = {}
        for sheet in self.sheets(asked):
            earned = self.earned(asked, sheet)
            if earned is None or earned.feasible:
                score = sign * sheet.scores[objective].value
                scores[sheet.epoch] = min(score, scores.get(sheet.epoch, score))
        return scores

    def stored_curves(self, sign: float) -> dict[str, dict[int, float]]:
        """Run key → milestone → objective times `sign`: every run in the store that was scored as this study scores.

        Of whatever study and settings, on the same images, at these milestones, sampling points and sample count.
        """
        scoring, curves = self.scoring("search"), dict[str, dict[int, float]]()
        for key, settings, folder in self.store.runs_on(self.content):
            points = self.searched(settings)
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
