"""Fixtures that every room's tests share.

What is heavy is imported inside them: the process that hands out the tests reads this file too, and runs none.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diffsearch import registry

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests share the cores as processes; torch's threads would spin

if TYPE_CHECKING:
    from tests.laboratory import Laboratory

ROOT = Path(__file__).resolve().parent.parent
LONGEST = ("tests/e2e/test_command.py", "tests/study/test_runner.py", "tests/docs/test_tour.py", "tests/laws/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: of two workers, none is left alone with one of them at the end."""

    def place(item: pytest.Item) -> int:
        return next((place for place, file in enumerate(LONGEST) if item.nodeid.startswith(file)), len(LONGEST))

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Whatever modules bring in stays: the garbage collector need not go through it at each of a thousand imports."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real MNIST, CIFAR-10 and flower images beside the checkout; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("DIFFSEARCH_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real images at {folder} (set DIFFSEARCH_DATA)")
    return folder


@pytest.fixture(autouse=True, scope="module")
def names_of_this_module() -> Iterator[None]:
    """What a module's tests register is gone when they are done: other tests see what ships with diffsearch."""
    with _as_they_were():
        yield


@pytest.fixture(autouse=True)
def names_of_this_test() -> Iterator[None]:
    """What a test registers is gone when it is done."""
    with _as_they_were():
        yield


@contextmanager
def _as_they_were() -> Iterator[None]:
    for family in registry.FAMILIES.values():
        family.names()  # opens its rooms
    before = {family: dict(family._members) for family in registry.FAMILIES.values()}
    yield
    for family, members in before.items():
        family._members.clear()
        family._members.update(members)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Results don't depend on the machine's number of cores, and parallel tests don't fight over them."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Puts an empty MLflow database into a folder; made once, as its tables take seconds to create."""
    from mlflow.tracking import MlflowClient

    made = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{made}").get_experiment_by_name("none")

    def copy(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(made, folder / "mlflow.db"))

    return copy


@pytest.fixture(scope="session")
def new_laboratory() -> Iterator[type[Laboratory]]:
    """Makes a laboratory in a folder."""
    from tests.laboratory import Laboratory

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield Laboratory


@pytest.fixture
def laboratory(tmp_path: Path, new_laboratory: type[Laboratory]) -> Laboratory:
    """Tiny studies in a store of the test's own."""
    return new_laboratory(tmp_path)
