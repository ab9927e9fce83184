"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real MNIST, CIFAR-10 and flower images beside the checkout; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("DIFFSEARCH_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real images at {folder} (set DIFFSEARCH_DATA)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Results don't depend on the machine's number of cores, and parallel tests don't fight over them."""
    torch.set_num_threads(1)
