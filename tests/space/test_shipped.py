"""The spaces that ship, the JSON Schema that editors check them with, and the file that `init` writes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from diffsearch.space.json_schema import json_schema
from diffsearch.space.lines import Problems, parse
from diffsearch.space.load import load
from diffsearch.space.starter import starter_text

SPACES = sorted((Path(__file__).resolve().parents[2] / "search_spaces").glob("*.yaml"))


def plain(text: str) -> Any:
    node = parse(text, Problems())
    assert node is not None
    return node.plain


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_shipped_space_loads_and_fits_the_schema(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    spec = load(path)
    assert spec.name == path.stem and spec.axes
    assert [error.message for error in validator.iter_errors(plain(path.read_text()))] == []
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize(
    "typo",
    [
        "trainin: {}",
        "training: {los: x0-l2}",
        "training: {loss: x0-l3}",
        "training: {loss: [x0-l2, x0-l3]}",
        "training: {batch_size: many}",
        "training: {batch_size: []}",
        "training: {learning_rate: {logg: [1e-4, 1]}}",
        "training: {learning_rate: {log: [1e-4]}}",
        "model: {kind: unett}",
        "model: {chanels: [8]}",
        "diffusion: {noise_process: [{name: cosine, ofset: 1}]}",
        "search: {stopping: {rule: ash}}",
        "search: {finalists: {sampling: {em: 0}}}",
        "budget: {wall: 10}",
        "resources: none",
    ],
)
def test_a_typo_does_not_fit_the_schema(typo: str, validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid(plain("data: {dataset: mnist-5k}\n" + typo))


@pytest.mark.parametrize(
    "text",
    [
        "training: {batch_size: {values: [8, 16], when: {model.kind: unet}}, gradient_clip: off, warmup: 2k}",
        "diffusion: {noise_process: [cosine, {name: cosine-squared, max_beta: 1}]}",
        "training: {learning_rate: {log: [1e-4, 1e-2], when: {training.loss: [x0-l2]}}}",
        "search: {algorithm: {name: CmaEsSampler, popsize: 8}, stopping: HyperBandScheduler}",
        "x-mine: 3\nmodel:\nresources: {cpu: 1, gpu: auto}",
    ],
)
def test_what_loads_fits_the_schema(text: str, validator: jsonschema.Draft202012Validator) -> None:
    assert [error.message for error in validator.iter_errors(plain("data: {dataset: mnist-5k}\n" + text))] == []


@dataclass(frozen=True)
class Facts:
    path: Path
    images: int
    suggested_size: int = 64
    grey: bool = False
    classes: tuple[str, ...] = ()


@pytest.mark.parametrize(
    "facts",
    [
        Facts(Path("./photos"), 120),
        Facts(Path("my: odd 'folder' $1"), 900, 32, True, ("a", "b")),
        Facts(Path("/tmp/flowers"), 8_189, 64, False, ("rose", "daisy")),
        Facts(Path("faces"), 202_599),
    ],
)
def test_the_file_that_init_writes_loads(
    facts: Facts, tmp_path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    text = starter_text(facts, "photos")
    (tmp_path / "photos.yaml").write_text(text)
    spec = load(tmp_path / "photos.yaml")
    assert spec.name == "photos" and Path(spec.fixed["data.path"]) == (tmp_path / facts.path).resolve()
    assert spec.fixed["data.mode"] == ("grey" if facts.grey else "rgb")
    assert validator.is_valid(plain(text))


def test_the_published_schema_is_the_one_that_the_code_has() -> None:
    """In a process of its own: other tests register members."""
    published = SPACES[0].parent / "study.schema.json"
    code = "import json; from diffsearch.space.json_schema import json_schema; print(json.dumps(json_schema()))"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(published.read_text()) == json.loads(made), f"make it anew: diffsearch schema -o {published}"
