"""Checks of what is scored: metric names, how many images they need, whether their extractor is here and fits."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from diffsearch.registry import dataset, extractor, metric
from diffsearch.space.axes import member_at
from diffsearch.space.members import Draft
from diffsearch.space.metric_names import MetricName, find, known_metrics, refusal
from diffsearch.space.settings import StudySpec


def check_metrics(spec: StudySpec, draft: Draft) -> None:
    """Known names, the objective among them, enough images for each, and an extractor that can read the data's."""
    written = draft.settings.get("evaluation.objective")
    objective = written.only if written is not None else spec.evaluation.objective
    listed = draft.settings.get("evaluation.metrics")
    metrics = listed.only if listed is not None else ()
    if listed is not None and metrics and objective not in metrics:
        message = f"the objective {objective} is not among them"
        draft.problems.add(listed.place, "evaluation.metrics", message, f"add {objective}")
    for written_name in dict.fromkeys((objective, *metrics)):  # what is added beside them has the same needs
        path = "evaluation.objective" if written_name == objective else "evaluation.metrics"
        name = find(written_name)
        if name is None:
            draft.problems.add(draft.place(path), path, *refusal(written_name))
            continue
        counts = {"evaluation.samples": spec.evaluation.samples}
        if spec.search.finalists.samples:
            counts["search.finalists.samples"] = spec.search.finalists.samples
        _check_installed(name, path, draft)
        _check_samples(name, counts, draft)
        _check_images(name, path, spec, draft)


def check_screen(spec: StudySpec, draft: Draft) -> None:
    """An unbiased metric that can be had of fewer images than the full score takes."""
    screen, section = spec.evaluation.screen, "evaluation.screen"
    if screen is None:
        return
    path, of_samples = f"{section}.objective", f"{section}.samples"
    written = draft.settings.get(path)
    if of_samples not in draft.settings:
        message = "a screen needs samples: the images that the search scores at each milestone"
        draft.problems.add(draft.place(section), of_samples, message, "e.g. samples: 200")
        return
    if screen.samples >= spec.evaluation.samples:
        message = f"{screen.samples:,} images are no fewer than the {spec.evaluation.samples:,} of the full score"
        help = "a screen is cheap: give fewer, or leave it out"
        draft.problems.add(draft.place(of_samples), of_samples, message, help)
    objective = written.only if written is not None else screen.objective
    name = find(objective)
    if name is None:
        draft.problems.add(draft.place(path), path, *refusal(objective))
        return
    if not name.is_unbiased:
        unbiased = [each for each in known_metrics() if each.is_unbiased and each.reference != "train"]
        near = sorted(unbiased, key=lambda each: (each.extractor != name.extractor, str(each)))
        message = f"{name} is biased at few images, and not alike for every network, so it may order them wrongly"
        help = f"those that are not: {', '.join(map(str, near))}"
        draft.problems.add(draft.place(path), path, message, help)
        return
    _check_installed(name, path, draft)
    _check_samples(name, {of_samples: screen.samples}, draft)
    _check_images(name, path, spec, draft)


def _check_installed(name: MetricName, path: str, draft: Draft) -> None:
    traits = extractor.member(name.extractor).traits
    absent = [package for package in traits.get("packages", ()) if importlib.util.find_spec(package) is None]
    if absent:
        message = f"{name} needs {' and '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed"
        draft.problems.add(draft.place(path), path, message, f"pip install 'diffsearch[{traits['extra']}]'")


def _check_samples(name: MetricName, counts: Mapping[str, int], draft: Draft) -> None:
    """Args: counts: path of a number of images → that number."""
    maximum, least = metric.member(name.kind).traits.get("maximum_samples"), name.minimum_samples
    most = None if maximum is None else maximum(name.dim)
    for path, count in counts.items():
        if count < least:
            message = f"{count:,} images are too few for {name}, which needs at least {least:,}"
            draft.problems.add(draft.place(path), path, message)
        elif most is not None and count > most:
            draft.problems.add(draft.place(path), path, f"{count:,} images are more than {name} can use: {most:,}")


def _check_images(name: MetricName, path: str, spec: StudySpec, draft: Draft) -> None:
    has = dataset.member(member_at(spec.fixed, "data").name).traits.get("image_shape")
    if name.image_shape is not None and has is not None and not name.fits(has):
        message = f"{name} reads images of {_by(name.image_shape)}, and the data set's are {_by(has)}"
        draft.problems.add(draft.place(path), path, message)


def _by(shape: tuple[int, int, int]) -> str:
    return "×".join(map(str, shape))
