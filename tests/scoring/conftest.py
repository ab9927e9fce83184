"""The data that the scoring room's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffsearch.data.datasets import ImageData, load
from diffsearch.space.settings import Choice


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """5,000 real digits."""
    return load(Choice.of("mnist-5k"), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def mnist(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """All 60,000 and 10,000."""
    return load(Choice.of("mnist", root=str(shared_data)), tmp_path_factory.mktemp("cache"))
