"""An MLflow database for tests, made once: its tables take seconds to create."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Puts an empty database with all its tables into a folder."""
    from mlflow.tracking import MlflowClient

    made = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{made}").get_experiment_by_name("none")

    def copy(folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        return Path(shutil.copy(made, folder / "mlflow.db"))

    return copy
