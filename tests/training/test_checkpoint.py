import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from diffsearch.errors import StoreError
from diffsearch.space.settings import Choice
from diffsearch.training import checkpoint
from diffsearch.training.checkpoint import Checkpoint, digest, load, save, state_tensors
from diffsearch.training.loop import start, train

CPU = torch.device("cpu")

CASES = {  # a small network of each kind that ships, and one with dropout, buffers and a tied weight
    "tiny with dropout": (Choice.of("tiny", dropout=0.3), {}),
    "tiny in bf16": (Choice.of("tiny", dropout=0.3), {"precision": "bf16"}),
    "U-Net, Adam, cosine, clipped": (
        Choice.of("unet", channels=(4, 8)),
        {"optimizer": "adam", "schedule": "cosine", "horizon": 3, "warmup": 60, "gradient_clip": 0.1},
    ),
    "U-Net in bf16": (Choice.of("unet", channels=(4, 8)), {"precision": "bf16"}),
    "U-Net, conditional, varied": (
        Choice.of("unet", channels=(4, 8), context="multiply", dropout=0.1, gate="half"),
        {"conditioning": "class", "augmentation": "flip-crop", "learned_variance": True, "min_snr_gamma": 5.0},
    ),
    "raw weights only": (Choice.of("conv"), {"ema_half_life": (0,)}),
}

RESUME = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from diffsearch import registry
from diffsearch.data.datasets import ImageData
from diffsearch.space.settings import RunSettings
from diffsearch.training.checkpoint import digest, load, state_tensors
from diffsearch.training.loop import start, train

torch.set_num_threads(1)
registry.use(Path(sys.argv[1]))
folder, hashes = Path(sys.argv[2]), {}
labels = np.arange(40) % 2
data = ImageData.of(
    "blobs", np.load(folder / "train.npy", mmap_mode="r"), train_labels=labels, classes=("even", "odd")
)
for name, plain in json.loads((folder / "cases.json").read_text()).items():
    state = start(RunSettings.from_json(plain), name, data, torch.device("cpu"))
    load(state, folder / f"{name}.safetensors")
    losses = [record.loss for record in train(state, data, until_epoch=3)]
    hashes[name] = [digest(dict(state_tensors(state))), *losses]
print(json.dumps(hashes))
"""


def test_training_on_in_a_fresh_process_is_bit_for_bit_training_without_a_stop(settings, blobs, tmp_path):
    np.save(tmp_path / "train.npy", blobs.train)
    runs = {name: settings(training, model=model) for name, (model, training) in CASES.items()}
    (tmp_path / "cases.json").write_text(json.dumps({name: run.to_json() for name, run in runs.items()}))
    straight = {}
    blobs = dataclasses.replace(blobs, train_labels=np.arange(40) % 2, classes=("even", "odd"))
    for name, run in runs.items():
        state = start(run, name, blobs, CPU)
        losses = []
        for record in train(state, blobs, until_epoch=3):
            losses.append(record.loss)
            if record.epoch == 1:
                save(state, tmp_path / f"{name}.safetensors", with_optimizer=True)
        straight[name] = [digest(dict(state_tensors(state))), *losses[1:]]
    command = [sys.executable, "-c", RESUME, str(Path(__file__).with_name("tiny.py")), str(tmp_path)]
    resumed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout) == straight


@pytest.fixture
def state(settings, blobs):
    trained = start(settings(model=Choice.of("tiny", dropout=0.3)), "key", blobs, CPU)
    list(train(trained, blobs, until_epoch=1))
    return trained


def test_what_is_saved_loads_and_saves_as_the_same_bytes(state, settings, blobs, tmp_path):
    save(state, tmp_path / "a.safetensors", with_optimizer=True)
    again = start(state.settings, "key", blobs, CPU)
    load(again, tmp_path / "a.safetensors")
    save(again, tmp_path / "b.safetensors", with_optimizer=True)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (again.epoch, again.images_seen, again.steps) == (1, 40, 3)
    assert dict(state_tensors(state)).keys() == dict(state_tensors(again)).keys()


def test_a_run_that_has_not_begun_can_be_saved_and_loaded(settings, blobs, tmp_path):
    fresh = start(settings(), "key", blobs, CPU)
    save(fresh, tmp_path / "a.safetensors", with_optimizer=True)
    again = start(settings(), "key", blobs, CPU)
    load(again, tmp_path / "a.safetensors")
    assert digest(dict(state_tensors(fresh))) == digest(dict(state_tensors(again)))


def test_a_checkpoint_is_fp32_safetensors_with_each_weight_once(state, tmp_path):
    save(state, tmp_path / "a.safetensors", with_optimizer=True)
    tensors = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert {tensor.dtype for name, tensor in tensors.items() if "num_batches" not in name} == {torch.float32}
    assert "network.middle.weight" in tensors and "network.again.weight" not in tensors
    assert {name.split(".")[1] for name in tensors if name.startswith("ema.")} == {"20", "200"}
    moments = {name.split(".")[1] for name in tensors if name.startswith("optimizer.")}
    assert moments == {"exp_avg", "exp_avg_sq", "step"}


@pytest.mark.parametrize("track", [0, 20, 200])
def test_a_checkpoint_samples_as_its_run_did_without_the_data(track, state, tmp_path):
    save(state, tmp_path / "epoch.safetensors", with_optimizer=False)
    read = Checkpoint.read(tmp_path / "epoch.safetensors")
    assert (read.settings, read.run_key, read.epoch, read.images_seen) == (state.settings, "key", 1, 40)
    assert read.image_shape == (1, 8, 8) and read.normalization == state.normalization and read.ema == (20, 200)
    x, t = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(1, 6)
    ours, theirs = read.denoiser(track), state.denoiser(track)
    with torch.no_grad():
        assert torch.equal(ours.network(x, t), theirs.network(x, t))
    assert (ours.predicts, ours.low, ours.high) == ("x0", -1, 1) and torch.equal(ours.data_mean, theirs.data_mean)
    before = torch.get_rng_state()
    read.network(track)
    assert torch.equal(before, torch.get_rng_state())


def test_tracks_differ_and_an_untracked_one_is_refused(state, blobs, tmp_path):
    list(train(state, blobs, until_epoch=5))  # until then the warm-up binds both tracks
    save(state, tmp_path / "epoch.safetensors", with_optimizer=False)
    read = Checkpoint.read(tmp_path / "epoch.safetensors")
    found = {digest(dict(read.network(track).named_parameters())) for track in (0, 20, 200)}
    assert len(found) == 3
    with pytest.raises(StoreError, match="kept: 0, 20, 200"):
        read.network(64)


def test_a_checkpoint_without_the_optimiser_or_of_another_run_is_not_trained_on(state, settings, blobs, tmp_path):
    save(state, tmp_path / "epoch.safetensors", with_optimizer=False)
    with pytest.raises(StoreError, match=r"epoch\.safetensors: holds no optimiser"):
        load(start(state.settings, "key", blobs, CPU), tmp_path / "epoch.safetensors")
    with pytest.raises(StoreError, match="of run key, not of other"):
        load(start(state.settings, "other", blobs, CPU), tmp_path / "epoch.safetensors")


def test_a_checkpoint_of_another_network_is_refused(state, settings, blobs, tmp_path):
    save(state, tmp_path / "latest.safetensors", with_optimizer=True)
    wider = start(settings(model=Choice.of("tiny", width=6)), "key", blobs, CPU)
    with pytest.raises(StoreError, match=r"not those of this run's network: enter\.bias, enter\.weight"):
        load(wider, tmp_path / "latest.safetensors")


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_is_cut_off_leaves_the_old_file(failure, state, blobs, tmp_path, monkeypatch):
    path = tmp_path / "latest.safetensors"
    save(state, path, with_optimizer=True)
    before = path.read_bytes()
    list(train(state, blobs, until_epoch=2))

    def fail(*_: object, **__: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        patch.setattr(Path, "replace", fail)
        with pytest.raises(StoreError if isinstance(failure, OSError) else KeyboardInterrupt):
            save(state, path, with_optimizer=True)
    assert path.read_bytes() == before and Checkpoint.read(path).epoch == 1
    save(state, path, with_optimizer=True)
    assert Checkpoint.read(path).epoch == 2
    assert [file.name for file in tmp_path.iterdir()] == ["latest.safetensors"]


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_torn_file_is_an_error_that_names_it(kept, state, tmp_path):
    path = tmp_path / "latest.safetensors"
    save(state, path, with_optimizer=True)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(StoreError, match=r"latest\.safetensors: not a whole checkpoint"):
        Checkpoint.read(path)


@pytest.mark.parametrize("where", ["weights", "epoch"])
def test_an_altered_file_is_an_error_that_names_it(where, state, tmp_path):
    path = tmp_path / "latest.safetensors"
    save(state, path, with_optimizer=True)
    content = bytearray(path.read_bytes())
    if where == "weights":
        content[-3] ^= 1
    else:
        spot = content.index(rb"\"epoch\":1") + len(rb"\"epoch\":")
        content[spot : spot + 1] = b"7"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"latest\.safetensors: its bytes were altered"):
        Checkpoint.read(path)


def test_what_is_no_checkpoint_is_an_error_that_names_it(tmp_path):
    with pytest.raises(StoreError, match="absent"):
        Checkpoint.read(tmp_path / "absent.safetensors")
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(StoreError, match=r"other\.safetensors: not a whole checkpoint"):
        Checkpoint.read(tmp_path / "other.safetensors")


def test_a_newer_format_is_refused(state, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 99)
        save(state, tmp_path / "a.safetensors", with_optimizer=False)
    with pytest.raises(StoreError, match="format 99"):
        Checkpoint.read(tmp_path / "a.safetensors")
