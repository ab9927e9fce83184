"""The data that the scoring room's tests share."""

from __future__ import annotations

import pytest

from diffsearch.data.datasets import ImageData, load
from diffsearch.space.settings import Choice


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """5,000 real digits."""
    return load(Choice.of("mnist-5k"), tmp_path_factory.mktemp("cache"))
