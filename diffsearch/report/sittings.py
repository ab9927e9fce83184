"""Drawing the plates of an album: what one trained network makes of noise, of latents between others, of real images.

A plate is images, uint8, and the facts of its caption. Calls of the network are kept few: a sampler that may do with
fewer steps gets at most `MOST_CALLS`, and how many images are drawn follows from the speed that the study measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsearch.data.datasets import ImageData
from diffsearch.data.normalise import Normalization
from diffsearch.diffusion import Denoiser, journeys, sample
from diffsearch.diffusion.journeys import DDIM
from diffsearch.diffusion.sampling import starting_noise
from diffsearch.records import Evaluation
from diffsearch.registry import sampler
from diffsearch.report.style import Pixels
from diffsearch.scoring.features import Extractor
from diffsearch.scoring.neighbours import memorised, nearest
from diffsearch.space.settings import SamplingPoint
from diffsearch.training.checkpoint import Checkpoint

MOST_CALLS = 25
SEED = 0
WALKS, SHOWN_STEPS = 3, 9
BETWEEN = 9  # images from one latent or class to another
LATENT_PAIRS, CLASS_PAIRS = 2, 4
CLASS_ROWS, CLASS_COLUMNS = 10, 10
RECONSTRUCTED, PART_WAYS = 4, (0.25, 0.5, 0.75)  # images, and the shares of the way that they are noised to
FEWEST_DRAWN, MOST_DRAWN, DRAWING_S = 32, 250, 5.0
FEWEST_SEARCHED, MOST_SEARCHED, SEARCHING_S = 250, 10_000, 20.0  # training images
PICKED, SUSPECTS = 16, 8


@dataclass(frozen=True, slots=True)
class Plate:
    """What one picture is made of."""

    images: Mapping[str, Pixels]
    facts: Mapping[str, Any]  # JSON


@dataclass(frozen=True)
class Real:
    """Real images for drawn ones to be compared with."""

    train: Pixels  # (N, C, H, W)
    unseen: np.ndarray | None  # (M, d) features of images that weren't trained on
    extractor: Extractor


@dataclass(frozen=True)
class Studio:
    """One trained network, how it is sampled, and how fast the study found it."""

    denoiser: Denoiser
    normalization: Normalization
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]  # names of the labels that the network takes
    point: SamplingPoint
    drawing_speed: float  # images times network calls a second
    scoring_speed: float  # images a second
    data: ImageData | None
    device: torch.device

    @property
    def steps(self) -> int | None:
        """Of the winner's sampler: as it was scored, or fewer."""
        few = sampler.member(self.point.sampler.name).traits["few_step"] and not self.denoiser.direct_mean
        wanted = self.point.steps or self.denoiser.schedule.first_step
        return MOST_CALLS if few and wanted > MOST_CALLS else self.point.steps

    def ddim_steps(self, until: int) -> int | None:
        """Of DDIM from step `until` to the image."""
        return MOST_CALLS if until > MOST_CALLS else None

    def told(self, labels: Sequence[int]) -> Denoiser:
        """The network under one class an image, guided as it was scored; itself where it takes no labels."""
        if not self.denoiser.classes:
            return self.denoiser
        rows = torch.eye(self.denoiser.classes, device=self.device)[list(labels)]
        return self.denoiser.given(rows, self.point.guidance)

    def classes_in_turn(self, count: int) -> list[int]:
        return [place % max(1, self.denoiser.classes) for place in range(count)]

    def latents(self, count: int) -> Tensor:
        """(count, C, H, W)"""
        return starting_noise(self.denoiser, (count, *self.image_shape), SEED)[0].to(self.device)

    def pixels(self, images: Tensor) -> Pixels:
        """Normalised images as they would be saved; what lies beyond the range is clipped."""
        return self.normalization.decode(images).cpu().numpy()

    def grey_levels(self, error: Tensor) -> list[float]:
        """Errors in normalised units → of 255."""
        return [float(e) * 255 / (self.normalization.high - self.normalization.low) for e in error]

    def how(self, steps: int | None) -> dict[str, Any]:
        """Facts of how it was drawn with the winner's sampler."""
        calls = len(self.denoiser.timesteps(steps))
        return {"sampler": str(self.point.sampler), "calls": calls, "of": self.denoiser.schedule.first_step}


def studio(trained: Checkpoint, sheet: Evaluation, data: ImageData | None, device: torch.device) -> Studio:
    """What is needed to draw from a checkpoint as it was scored."""
    return Studio(
        denoiser=trained.denoiser(sheet.sampling.ema, device),
        normalization=trained.normalization,
        image_shape=trained.image_shape,
        classes=trained.classes,
        point=sheet.sampling,
        drawing_speed=sheet.network_calls / max(sheet.sampling_s, 0.001),
        scoring_speed=sheet.samples / max(sheet.scoring_s, 0.001),
        data=data,
        device=device,
    )


def plates(at: Studio, real: Real | None) -> dict[str, Plate]:
    """Every plate that applies to the network, by name.

    Args:
        real: None where nothing is to be compared.
    """
    drawers: dict[str, Callable[[Studio], Plate | None]] = {
        "trajectory": trajectory,
        "classes": class_rows,
        "interpolation": interpolation,
        "between-classes": between_classes,
        "reconstruction": reconstruction,
    }
    drawn = {name: drawer(at) for name, drawer in drawers.items()}
    if real is not None:
        drawn["neighbours"] = neighbours(at, real)
    return {name: plate for name, plate in drawn.items() if plate is not None}


def trajectory(at: Studio) -> Plate:
    """`x_t` and, where the network gives one, `x_0`: (steps shown, images, C, H, W)."""
    told = at.told(at.classes_in_turn(WALKS))
    shape = (WALKS, *at.image_shape)
    found = journeys.trajectory(told, at.point.sampler, at.steps, shape, SEED, at.device).thinned(SHOWN_STEPS)
    images = {"x_t": at.pixels(found.x_t)}
    facts: dict[str, Any] = {"ts": found.ts, **at.how(at.steps)}
    if found.x_0 is not None:
        images["x_0"] = at.pixels(found.x_0)
        off = (found.x_0 - found.images).square().flatten(1).mean(1).sqrt()
        facts["off"] = at.grey_levels(off)  # of x_0 from the image that came of it, root mean square, by step
    return Plate(images, facts)


def class_rows(at: Studio) -> Plate | None:
    """`rows`: (classes, columns, C, H, W), the same noise along each column."""
    if not at.denoiser.classes:
        return None
    chosen = _evenly(at.denoiser.classes, CLASS_ROWS)
    shape = (CLASS_COLUMNS, *at.image_shape)
    rows = journeys.class_rows(
        at.denoiser, at.point.sampler, at.steps, shape, SEED, chosen, at.point.guidance, at.device
    )
    facts = {"classes": [at.classes[c] for c in chosen], "of_classes": len(at.classes), "guidance": at.point.guidance}
    return Plate({"rows": at.pixels(rows)}, {**facts, **at.how(at.steps)})


def interpolation(at: Studio) -> Plate | None:
    """`slerp` and `lerp`: (pairs, images between, C, H, W). `norms`: of the linear latents, as shares of the arc's."""
    if at.denoiser.direct_mean:
        return None
    steps = at.ddim_steps(at.denoiser.schedule.first_step)
    latents = at.latents(2 * LATENT_PAIRS)
    ends = list(zip(latents[0::2], latents[1::2], strict=True))
    images = {}
    for along in (journeys.slerp, journeys.lerp):
        drawn = [
            journeys.interpolation(at.told([label] * BETWEEN), *pair, BETWEEN, steps, along)
            for label, pair in zip(at.classes_in_turn(LATENT_PAIRS), ends, strict=True)
        ]
        images[along.__name__] = at.pixels(torch.stack(drawn))
    half = torch.tensor([0.5], device=at.device)
    norms = [float(journeys.lerp(*pair, half).norm() / journeys.slerp(*pair, half).norm()) for pair in ends]
    return Plate(images, {"norms": norms, "calls": len(at.denoiser.timesteps(steps))})


def between_classes(at: Studio) -> Plate | None:
    """`rows`: (pairs, images between, C, H, W), one latent for all."""
    if not at.denoiser.classes or at.denoiser.direct_mean:
        return None
    steps = at.ddim_steps(at.denoiser.schedule.first_step)
    chosen = _evenly(at.denoiser.classes, CLASS_PAIRS + 1)
    (latent,) = at.latents(1)
    rows = [
        journeys.between_classes(at.denoiser, latent, *pair, BETWEEN, steps, at.point.guidance)
        for pair in pairwise(chosen)
    ]
    if not rows:
        return None
    names = [[at.classes[first], at.classes[last]] for first, last in pairwise(chosen)]
    facts = {"pairs": names, "guidance": at.point.guidance, "calls": len(at.denoiser.timesteps(steps))}
    return Plate({"rows": at.pixels(torch.stack(rows))}, facts)


def reconstruction(at: Studio) -> Plate | None:
    """`real` (images, C, H, W); `noised` and `images`: (steps, images, C, H, W). Errors: steps × images."""
    first = at.denoiser.schedule.first_step
    ts = sorted({max(1, round(first * share)) for share in PART_WAYS} - {first})
    if at.data is None or not ts:
        return None
    which = "training" if at.data.test is None else "test"
    real, labels = (
        (at.data.train, at.data.train_labels) if at.data.test is None else (at.data.test, at.data.test_labels)
    )
    rows = _evenly(len(real), RECONSTRUCTED + 2)[1:-1]  # of sets that are sorted by class, several classes
    told = at.told([0] * len(rows) if labels is None else [int(labels[row]) for row in rows])
    x_0 = at.normalization.encode(torch.from_numpy(np.array(real[rows]))).to(at.device)
    drawn_by = at.point.sampler if at.denoiser.direct_mean else DDIM
    found = [
        journeys.reconstruction(told, x_0, t, SEED, drawn_by, None if at.denoiser.direct_mean else at.ddim_steps(t))
        for t in ts
    ]
    images = {
        "real": np.array(real[rows]),
        "noised": at.pixels(torch.stack([part.noised for part in found])),
        "images": at.pixels(torch.stack([part.images for part in found])),
    }
    facts = {
        "ts": ts,
        "which": which,
        "sampler": str(drawn_by),
        "alpha_bar": [float(at.denoiser.schedule.alpha_bar[t]) for t in ts],
        "errors": [[float(e) for e in part.error] for part in found],
        "grey_levels": [at.grey_levels(part.error) for part in found],
    }
    return Plate(images, facts)


def neighbours(at: Studio, real: Real) -> Plate:
    """The drawn images nearest to unseen real ones (`picked`) and to training images (`suspects`), with the latter.

    `picked`, `picked_near`, `suspects`, `suspects_near`: (images, C, H, W). Without unseen images `picked` are those
    nearest to a training image, and there are no others.
    """
    calls = len(at.denoiser.timesteps(at.steps))
    count = min(MOST_DRAWN, max(FEWEST_DRAWN, int(DRAWING_S * at.drawing_speed / calls)))
    told = at.told(at.classes_in_turn(count))
    shape = (count, *at.image_shape)
    drawn = at.pixels(torch.cat(list(sample(told, at.point.sampler, at.steps, shape, SEED, count, at.device))))
    most = min(MOST_SEARCHED, max(FEWEST_SEARCHED, int(SEARCHING_S * at.scoring_speed)))
    rows = np.array(_evenly(len(real.train), most))
    features = real.extractor.extract(drawn)
    searched = real.extractor.extract(real.train[rows])
    near, distance = nearest(features, searched)
    facts: dict[str, Any] = {
        **at.how(at.steps),
        "drawn": count,
        "searched": len(rows),
        "training": len(real.train),
        "extractor": real.extractor.name,
    }
    suspects = np.argsort(distance, kind="stable")[:SUSPECTS]
    groups = {"suspects": suspects}
    if real.unseen is not None:
        _, to_real = nearest(features, real.unseen)
        groups["picked"] = np.argsort(to_real, kind="stable")[:PICKED]
        _, unseen = nearest(real.unseen, searched)
        facts |= {
            "unseen": len(real.unseen),
            "memorised": memorised(distance, unseen),
            "usual": float(np.median(unseen)),
            "to_real": [float(d) for d in to_real[groups["picked"]]],
        }
    images: dict[str, Pixels] = {}
    for name, chosen in groups.items():
        images |= {name: drawn[chosen], f"{name}_near": np.array(real.train[rows[near[chosen]]])}
        facts[name] = [float(d) for d in distance[chosen]]
    return Plate(images, facts)


def _evenly(total: int, count: int) -> list[int]:
    """At most `count` of 0..total-1, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()
