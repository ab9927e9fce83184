"""A small study of three networks, one of which takes classes and one of which keeps no checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from diffsearch.demo.networks import Networks
from diffsearch.records import RunHistory
from tests.laboratory import Laboratory

CHANGES = {
    "training.loss": ["x0-l2", "mu-tilde-l2", "v-l2"],
    "training.conditioning": {"values": ["class"], "when": {"training.loss": "mu-tilde-l2"}},
    "training.epochs": 1,
    "training.learning_rate": 3e-3,
    "diffusion.steps": 4,
    "data.images": 100,
    "training.batch_size": 10,
}
LOST = "v-l2"  # whose checkpoint is gone


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory, new_laboratory: type[Laboratory]) -> Iterator[Laboratory]:
    made = new_laboratory(tmp_path_factory.mktemp("demo"))
    made.run(CHANGES)
    lost = next(run for run in made.history().runs if run.settings.training.loss == LOST)
    made.store.run(lost.key).checkpoint(1).unlink()
    yield made


@pytest.fixture(scope="module")
def networks(laboratory: Laboratory) -> Networks:
    return Networks(laboratory.store, "tiny")


def of_loss(networks: Networks, loss: str) -> RunHistory:
    return next(run for run in networks.runs if run.settings.training.loss == loss)
