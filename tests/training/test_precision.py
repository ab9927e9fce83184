import json
from pathlib import Path

import pytest
import torch

from diffsearch.training.precision import WORTH_IT, Autocast, measure, time_step

CPU = torch.device("cpu")


def test_the_answer_is_measured_once_and_remembered(tmp_path):
    first = measure(CPU, tmp_path)
    (key,) = json.loads((tmp_path / "precision.json").read_text())
    assert torch.__version__ in key
    other = "bf16" if first == "fp32" else "fp32"
    (tmp_path / "precision.json").write_text(json.dumps({key: other, "another processor": "bf16"}))
    assert measure(CPU, tmp_path) == other


@pytest.mark.parametrize("content", ["{", '{"x": 3}'])
def test_a_broken_memory_is_measured_anew(content, tmp_path):
    (tmp_path / "precision.json").write_text(content)
    assert measure(CPU, tmp_path) in ("fp32", "bf16")
    assert len(json.loads((tmp_path / "precision.json").read_text())) == 1


def test_a_cache_that_can_not_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert measure(CPU, tmp_path / "file" / "below") in ("fp32", "bf16")


def test_a_processor_that_emulates_bf16_trains_in_fp32(tmp_path):
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or {"amx_bf16", "avx512_bf16"} & set(cpuinfo.read_text().split()):
        pytest.skip("this processor may have bf16 instructions")
    assert measure(CPU, tmp_path) == "fp32"
    seconds = time_step(CPU)
    assert seconds["fp32"] / seconds["bf16"] < WORTH_IT


def test_measuring_leaves_threads_and_generator_as_they_were():
    threads, before = torch.get_num_threads(), torch.get_rng_state()
    time_step(CPU)
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("precision", "inside"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_a_network_computes_in_its_precision_and_answers_in_fp32(precision, inside):
    network, seen = torch.nn.Conv2d(1, 1, 1), []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    network.forward = lambda x, t, forward=network.forward: forward(x)
    output = Autocast(network, precision)(torch.ones(1, 1, 2, 2), torch.ones(1))
    assert output.dtype == torch.float32 and seen == [inside]
