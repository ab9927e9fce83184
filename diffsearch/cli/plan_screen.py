"""The screen of `diffsearch plan`: what is asked, what it takes alone and here, how long, how large."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from diffsearch.cli.words import about, cell, several, size
from diffsearch.records import Bounds
from diffsearch.report.phrases import compact, number
from diffsearch.space.axes import describe_axes, ends
from diffsearch.space.settings import StudySpec, as_json, show_duration

if TYPE_CHECKING:
    from diffsearch.api import Study
    from diffsearch.study.plan import Plan, Work

COLUMNS = ("alone", "with prefixes", "and {rule} (expected)", "in the store", "left")

WHERE = {
    "milestones": "at every milestone",
    "last": "at the last milestone, before it at the first point alone",
    "finalists": "for finalists, in the search at the first point alone",
}
INDENT = 12  # of the values beside `axes`, `search`, `sampling`


@dataclass(frozen=True)
class Screen:
    """What the screen says."""

    spec: StudySpec
    plan: Plan
    images: int
    shape: tuple[int, int, int]  # (C, H, W)
    reference: tuple[int, str] | None  # images and split of the reference; None: not measured, or none is used
    bounds: Bounds | None  # of the objective at the milestones' sample count
    store: str

    @classmethod
    def of(cls, study: Study, plan: Plan, *, measure: bool) -> Screen:
        """Collect it.

        Args:
            measure: score real images and noise too, once for each data set; seconds for `digits`, minutes for `fid`.

        Raises:
            MetricError: the objective's extractor isn't to be had.
        """
        from diffsearch.data.datasets import load
        from diffsearch.scoring.bounds import bounds
        from diffsearch.scoring.metrics import reference_for
        from diffsearch.space.axes import member_at
        from diffsearch.space.metric_names import parse

        spec, folder = study.spec, study.store.references
        data = load(member_at(spec.fixed, "data"))
        reference, found = None, None
        if measure:
            objective = parse(spec.evaluation.objective)
            against = reference_for(objective, data, folder)
            reference = None if against is None else (against.count, str(objective.reference))
            found = bounds(spec.evaluation.objective, data, spec.evaluation.samples, folder)
        where = os.path.relpath(study.store.root)
        shown = str(study.store.root) if where.startswith("..") else where
        return cls(spec, plan, len(data.train), data.image_shape, reference, found, shown)

    def text(self) -> str:
        width = max(60, min(120, shutil.get_terminal_size((100, 24)).columns))
        fill = partial(textwrap.fill, width=width, break_on_hyphens=False, break_long_words=False)
        what = [fill(line, subsequent_indent=" " * INDENT) for line in self._what()]
        cost = fill(f"  {self._cost()}", subsequent_indent="  ")
        return "\n".join([fill(self._asked(), subsequent_indent="  "), "", *what, "", *self._table(), "", cost])

    def json(self) -> str:
        spec, plan = self.spec, self.plan
        told: dict[str, Any] = {
            "study": spec.name,
            "images": self.images,
            "image_shape": list(self.shape),
            "objective": spec.evaluation.objective,
            "samples": spec.evaluation.samples,
            "bounds": as_json(self.bounds) if self.bounds else None,
            "milestones": list(spec.milestones),
            **as_json(plan),
            "wall_s": plan.wall_s,
        }
        return json.dumps(told, allow_nan=False)

    def _asked(self) -> str:
        spec, (channels, height, width) = self.spec, self.shape
        colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")
        text = f"{self.spec.name}   {self.images:,} {colour} images {width}×{height}"
        text += f" · {spec.evaluation.objective} on {spec.evaluation.samples:,} samples"
        if self.reference:
            text += f" against {self.reference[0]:,} {self.reference[1]} images"
        if self.bounds:
            text += f" · floor {number(self.bounds.floor)}, noise {number(self.bounds.ceiling)}"
        return text

    def _what(self) -> Iterator[str]:
        yield f"  axes      {describe_axes(self.spec)}{self._refused()}"
        search, plan = self.spec.search, self.plan
        runs = "runs until nothing is left" if plan.runs is None else several(plan.runs, "run")
        epochs = " → ".join(map(str, self.spec.milestones))
        rule = "" if search.stopping.name == "none" else f", {search.stopping.name}"
        text = f"  search    {search.algorithm}, {runs}{rule} over epochs {epochs}"
        if self.spec.repeats > 1:
            text += f", {self.spec.repeats} seeds each"
        finals = search.finalists
        if finals.top:
            samples = finals.samples or self.spec.evaluation.samples
            text += f", then the best {finals.top} × {several(finals.repeats, 'fresh seed')} at {samples:,} samples"
        yield text
        points = [f"{axis.name} {', '.join(map(cell, ends(axis)))}" for axis in self.spec.sampling_axes]
        if points:
            yield f"  sampling  {' · '.join(points)}{self._where()}"
        screen = self.spec.evaluation.screen
        if screen is not None:
            passed = several(round(plan.full.samples / self.spec.evaluation.samples), "evaluation")
            text = f"  screen    {screen.objective} on {screen.samples:,} samples in the search"
            text += (
                f" ({compact(plan.screen_samples)} in all); the best {100 * screen.keep:.0f} % then in full, without"
            )
            yield f"{text} training: {passed}, {compact(plan.full.samples)} samples"
        if not self.spec.budget.is_endless:
            yield f"  budget    {self._budget()}"

    def _refused(self) -> str:
        """How much of the space is never trained."""
        if not self.spec.search.constraints:
            return ""
        share = f"about {self.plan.refused:.0%} of it" if self.plan.refused else "none of it"
        return f"; {', '.join(map(str, self.spec.search.constraints))}: {share} is refused beforehand"

    def _budget(self) -> str:
        """Its limits, and what they will buy."""
        budget, forecast = self.spec.budget, self.plan.forecast
        limits = [f"{show_duration(budget.wall_s)} of working time"] if budget.wall_s is not None else []
        limits += [f"{compact(budget.images)} images trained"] if budget.images is not None else []
        limits += [f"{budget.device_s / 3600:g} device hours"] if budget.device_s is not None else []
        if budget.no_improvement is not None:
            limits.append(f"{several(budget.no_improvement, 'run')} without a better score")
        text = f"{', '.join(limits)}, whichever comes first"
        timed = budget.wall_s is not None or budget.device_s is not None
        if forecast is None or (timed and self.plan.speed is None):
            return text
        asked, finals = self.plan.runs, ", and the finals" if self.plan.finalists else ""
        if forecast.ended_by == "runs" and forecast.runs_low == asked:
            return f"{text}: it is enough for all {several(asked, 'run')}{finals}"
        low, high = forecast.runs_low, forecast.runs_high
        runs = "runs" if asked is None else f"of {several(asked, 'run')}"
        bought = f"about {forecast.runs:.0f}" + (f" ({low} to {high})" if low < high else "")
        return f"{text}: it buys {bought} {runs}{finals}"

    def _where(self) -> str:
        """Where the sweep is scored, why, and what each choice would cost."""
        sweep, runs = self.plan.sweep, self.plan.runs
        if sweep is None:
            return ""
        text = f", scored {WHERE[sweep.at]}"
        if sweep.asked == "auto":
            beyond = {at: compact(calls.beyond_base) for at, calls in sweep.calls.items()}
            cost = ", ".join(f"{at} {calls}" for at, calls in beyond.items())
            text += (
                f" (auto: a run's training is worth {compact(sweep.training_calls)} network calls, its sweep {cost})"
            )
        cost = ", ".join(f"{at} {compact(calls)}" for at, calls in self.plan.calls.items())
        return f"{text} · network calls of {'one run' if runs is None else 'all sampling'}: {cost}"

    def _table(self) -> Iterator[str]:
        plan, rule = self.plan, self.spec.search.stopping.name
        work: list[Work | None] = [plan.alone, plan.prefixes, plan.stopped, plan.stored, plan.left]
        heads = [head.format(rule=rule) for head in COLUMNS]
        if rule == "none":
            del work[2], heads[2]
        yield " " * 10 + "".join(f"{head:>{len(head) + 4}}" for head in heads)
        for name in ("epochs", "samples"):
            cells = [compact(getattr(each, name)) for each in work]
            yield f"  {name:<8}" + "".join(f"{c:>{len(h) + 4}}" for c, h in zip(cells, heads, strict=True))

    def _cost(self) -> str:
        plan = self.plan
        disk = f"{size(plan.disk_mb * 2**20)} in {self.store}"
        if not plan.left.epochs and not plan.left.samples:
            return f"nothing is left: `diffsearch run` has the answer at once · {disk}"
        speed, forecast = plan.speed, plan.forecast
        if speed is None or forecast is None:
            return f"no time was measured · about {disk}"
        time = about(forecast.wall_s)
        if forecast.low_s < forecast.high_s:
            time = f"{about(forecast.low_s)} to {about(forecast.high_s)}, likely {time},"
        parts = {"training": forecast.train_s, "sampling": forecast.draw_s, "scoring": forecast.score_s}
        shares = [f"{name} {about(seconds / max(1, plan.workers))}" for name, seconds in parts.items()]
        shares += [f"start and report {about(forecast.start_s + forecast.around_s)}"]
        since = "timed just now" if not speed.remembered else "as the store remembers it"
        since = since if not (speed.timed and speed.remembered) else "from the store and timed just now"
        measured = f"{speed.images_per_s:,.0f} img/s and {speed.steps_per_s:,.0f} steps/s a worker, {since}"
        workers = several(plan.workers, "worker")
        memory = f"{size(plan.worker_mb * 2**20)} of memory a worker"
        return f"about {time} on {workers} ({', '.join(shares)}; {measured}) · {disk} · {memory}"
