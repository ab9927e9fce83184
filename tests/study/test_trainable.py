"""`diffsearch.trainable`: a study's runs under a `Tuner` of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

import diffsearch

SPACE = """
name: brought
data: {dataset: mnist-5k, images: 160}
model: {kind: unet, channels: [[4], [4, 4]]}
diffusion: {steps: 2, noise_process: linear-noise}
training: {loss: x0-l2, batch_size: 40, epochs: [1, 2], ema_half_life: 0}
evaluation: {objective: fd-digits, samples: 70}
search: {algorithm: grid}
"""


def test_a_step_is_a_milestone_and_its_scores_are_the_stores(tmp_path: Path) -> None:
    file = tmp_path / "brought.yaml"
    file.write_text(SPACE)
    trainable = diffsearch.trainable(file, store=tmp_path / "store")
    run = trainable(config={"model.channels": [4]})
    first, second = run.train(), run.train()
    run.reset_config({"model.channels": [4, 4]})
    other = run.train()
    run.stop()
    assert (first["epoch"], first["done"], second["epoch"], second["done"]) == (1, False, 2, True)
    assert other["run_key"] != second["run_key"]

    summary = diffsearch.load(file, store=tmp_path / "store").run(workers=0, tracking_uri="sqlite:////proc/none/x.db")
    assert (summary.trained_epochs, summary.evaluations) == (1, 1)  # what the second run still lacks
    table = diffsearch.load(file, store=tmp_path / "store").table()
    there = table[(table["run_key"] == second["run_key"]) & (table["epoch"] == 2)]
    assert there["fd-digits"].item() == pytest.approx(second["fd-digits"])
