"""A Fréchet distance's bias in the number of images, and what is left of it at infinity, where the truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.honesty.shapes import Floats
from diffsearch.scoring.extrapolation import bias, mean_distance, to_infinity
from diffsearch.scoring.features import frechet_distance
from diffsearch.scoring.reference import Reference

DIM = 64  # as `digits` has
COUNTS = (400, 500, 1000, 2000, 4000)
DRAWS = 40


@dataclass(frozen=True, slots=True)
class Biases:
    """Of DRAWS draws each."""

    truth: float
    finite: Mapping[int, Floats]  # N → distances
    infinite: Mapping[int, Floats]  # their extrapolations
    told: Mapping[int, Floats]  # the bias that is shown beside the distance


def measure(rng: np.random.Generator) -> Biases:
    """Gaussians with falling spectra, the reference's trace 100 as that of `digits` is."""
    spectrum = 1 / np.arange(1, DIM + 1)
    spectrum *= 100 / spectrum.sum()
    turn, _ = np.linalg.qr(rng.normal(size=(DIM, DIM)))
    tilt, _ = np.linalg.qr(turn + 0.1 * rng.normal(size=(DIM, DIM)))
    real = (turn * spectrum) @ turn.T
    drawn = (tilt * spectrum * np.exp(0.5 * rng.normal(size=DIM))) @ tilt.T
    mean, root = 0.4 * rng.normal(size=DIM), np.linalg.cholesky(drawn)
    against = Reference(np.zeros(DIM), real, np.zeros((1, DIM), np.float32), 10**9, "0" * 16, "0" * 16)
    finite, infinite, told = ({n: np.empty(DRAWS) for n in COUNTS} for _ in range(3))
    for n in COUNTS:
        for i in range(DRAWS):
            features = mean + rng.normal(size=(n, DIM)) @ root.T
            finite[n][i] = mean_distance(features, against, 1)
            infinite[n][i] = to_infinity(features, against)[0]
            told[n][i] = bias(features, against)
    return Biases(frechet_distance(mean, drawn, against.mean, real), finite, infinite, told)


def rows(found: Biases) -> list[tuple[str, str]]:
    return [
        (
            f"Fréchet distance {found.truth:.1f} of {DIM} features, {n:,} images: too high by; told; left at infinity",
            f"{found.finite[n].mean() - found.truth:.2f}; {found.told[n].mean():.2f}; "
            f"{found.infinite[n].mean() - found.truth:+.2f} (from draw to draw ± {found.finite[n].std(ddof=1):.2f}, "
            f"at infinity ± {found.infinite[n].std(ddof=1):.2f})",
        )
        for n in COUNTS
    ]
