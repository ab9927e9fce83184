"""How good and how bad a score can be: real images scored as if they were drawn, and pure noise."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from diffsearch.data.datasets import ImageData
from diffsearch.errors import MetricError
from diffsearch.files import replace_file
from diffsearch.records import Bounds
from diffsearch.scoring.features import Extractor, Outputs, outputs
from diffsearch.scoring.metrics import check_fit, extractor_of, measure, reference_for, score_outputs
from diffsearch.scoring.reference import Reference, from_features, shipped
from diffsearch.space.metric_names import MetricName, parse
from diffsearch.space.settings import as_json


def bounds(metric: str, data: ImageData, samples: int, folder: Path, seed: int = 0) -> Bounds:
    """Floor and ceiling of a metric at one sample count, computed once and kept in `folder`.

    The floor is what that many real images score, drawn without replacement, that aren't among the reference's:
    training images against a test reference; against the training images, test images, else one half of the training
    images against the other. A metric without a reference scores test images, or training images where there are
    more. Where fewer are at hand all are used, and `samples` of the result says how many; a distance is larger at
    fewer. The ceiling is the score of as many images of uniform noise.

    Raises:
        MetricError: fewer real images than the metric needs, and whatever `score` raises.
    """
    name = parse(metric)
    check_fit(name, (samples, *data.image_shape), data)
    extractor = extractor_of(name)
    against = reference_for(name, data, folder)
    compared = data.test_content if against is None else against.data
    determinants = [metric, data.content, compared, measure(name), samples, seed]
    digest = hashlib.sha256(json.dumps(determinants).encode()).hexdigest()[:16]
    path = folder / f"bounds-{metric}-{samples}-{digest}.json"
    if path.is_file():
        return Bounds(**json.loads(path.read_text()))
    rng = np.random.default_rng(seed)
    real, floor_against = _real(name, data, samples, extractor, against, rng)
    count = len(real.features)
    if count < name.minimum_samples:
        raise MetricError(
            f"{metric} needs {name.minimum_samples} real images for its floor; {data.name} has {count} to spare"
        )
    noise = rng.integers(0, 256, (count, *data.image_shape), np.uint8)
    found = Bounds(
        metric=metric,
        samples=count,
        floor=score_outputs(name, real, floor_against).value,
        ceiling=score_outputs(name, outputs(extractor, noise), against).value,
    )
    replace_file(path, json.dumps(as_json(found)).encode())
    return found


def _real(
    name: MetricName,
    data: ImageData,
    samples: int,
    extractor: Extractor,
    against: Reference | None,
    rng: np.random.Generator,
) -> tuple[Outputs, Reference | None]:
    """What the extractor makes of real images outside the reference, and the reference that they are outside of."""
    at_hand = 0 if data.test is None else len(data.test)
    if against is None:
        images = data.test if data.test is not None and at_hand >= min(samples, len(data.train)) else data.train
        return outputs(extractor, _draw(images, samples, rng)), None
    if name.reference == "test":
        return outputs(extractor, _draw(data.train, samples, rng)), against
    if data.test is not None and at_hand >= min(samples, len(data.train) // 2):
        return outputs(extractor, _draw(data.test, samples, rng)), against
    family = shipped(data.reference_family, "test", extractor.content)
    if family is not None and not name.reads_logits:
        return Outputs(_draw(family.features, samples, rng)), against
    order = rng.permutation(len(data.train))
    drawn, rest = np.split(order, [min(samples, len(order) // 2)])
    others = from_features(extractor.extract(data.train[np.sort(rest)]), extractor, data.content)
    return outputs(extractor, data.train[np.sort(drawn)]), others


def _draw(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` rows without replacement, or all where there are fewer; in order, as a memory map is read fastest."""
    drawn: np.ndarray = rows[np.sort(rng.permutation(len(rows))[:count])]
    return drawn
