"""One small finished study in a store, run through the command line itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from diffsearch.cli import app

NO_MLFLOW = "http://127.0.0.1:1"  # refuses at once
STUDY = """\
name: two
data: {dataset: mnist-5k, images: 200}
model: {kind: unet, channels: [4]}
diffusion: {steps: 2, noise_process: linear-noise}
training:
  loss: [x0-l2, v-l2]
  batch_size: 100
  epochs: [1, 2]
  ema_half_life: [0, 100]
  precision: fp32
sampling: {sampler: ancestral, ema: 100}
evaluation: {objective: fd-digits, samples: 70}
search: {algorithm: grid}
"""
# Holds the lease that it is given until it is killed.
HOLD = """
import sys, time
from pathlib import Path
from diffsearch.store import Lease
with Lease.claim(Path(sys.argv[1]), "driver"):
    print("held", flush=True)
    time.sleep(60)
"""
Cli = Callable[..., Result]


def invoke(*words: object) -> Result:
    """`diffsearch words...` in this process."""
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with study.yaml, its finished store and what `run --json` said."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "study.yaml").write_text(STUDY)
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.chdir(folder)
        try:
            said = invoke("run", "study.yaml", "--workers", 0, "--json", "--tracking-uri", NO_MLFLOW)
        finally:
            os.chdir(before)
    assert said.exit_code == 0, said.output
    (folder / "said.jsonl").write_text(said.stdout)
    yield folder


@pytest.fixture
def at(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of the finished study, to be changed at will."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = tmp_path / "work"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def cli() -> Cli:
    return invoke
