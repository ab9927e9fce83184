"""Seconds to score 5,000 images with the cached reference, against the seconds to sample them at T = 15."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.throughput import few_images, settings
from diffsearch.data.datasets import load as load_data
from diffsearch.diffusion.sampling import sample
from diffsearch.scoring.metrics import score
from diffsearch.space.settings import Choice
from diffsearch.training.loop import start

COUNT = 5000


def rows() -> list[tuple[str, str]]:
    torch.set_num_threads(1)
    data = load_data(Choice("mnist-5k"))
    state = start(settings((16, 32, 64), 128), "scoring", few_images(), torch.device("cpu"))
    began = time.perf_counter()
    shape = (COUNT, *data.image_shape)
    batches = [state.normalization.decode(b) for b in sample(state.denoiser(0), Choice("ancestral"), None, shape, 0)]
    sampling_s = time.perf_counter() - began
    images = torch.cat(batches).numpy()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        score(np.ascontiguousarray(images[:100]), ["fd-digits"], data, Path(folder))  # imports; the reference is cached
        began = time.perf_counter()
        score(images, ["fd-digits"], data, Path(folder))
        scoring_s = time.perf_counter() - began
    return [
        ("sampling 5,000 images, T = 15, (16, 32, 64), one thread", f"{sampling_s:.1f} s"),
        ("scoring them, fd-digits", f"{scoring_s:.2f} s: {scoring_s / sampling_s:.1%} of it (target ≤ 10 %)"),
    ]
