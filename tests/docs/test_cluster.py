"""The page on clusters and the image: what they name is there, and what a machine can read of them it reads."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from diffsearch.cli import app
from diffsearch.space.load import loads

tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on; the image reads the dependencies with it
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
IGNORED = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#!"]
KEPT = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

STUDY = {"name": "small", "data": {"dataset": "mnist-5k"}, "diffusion": {"steps": [5, 10]}}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """The words of each call of diffsearch in the page's shell blocks and code spans."""
    shell = "\n".join(blocks("bash")).replace("\\\n", " ")
    lines = [line for line in shell.splitlines() if "--entrypoint" not in line]
    lines += re.findall(r"`(diffsearch [^`]+)`", re.sub(r"^```.*?^```$|\n", " ", PAGE, flags=re.DOTALL | re.MULTILINE))
    calls = (re.search(r"(?:^|[\s'])diffsearch ([a-z][^'#;&]*)", line) for line in lines)
    return [shlex.split(call[1]) for call in calls if call]


def copied() -> list[str]:
    """What the Dockerfile takes from the checkout."""
    words = [shlex.split(line)[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    return [word for line in words for word in line if not word.startswith("--")]


def test_every_command_of_the_page_is_one_of_diffsearch():
    found = commands()
    assert {"run", "sync", "status", "data", "features", "ui"} <= {words[0] for words in found}
    for name, *rest in found:
        options = {word for option in app.commands[name].params for word in option.opts}
        assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= options, (name, rest)
        for word in rest:
            assert not word.startswith("search_spaces/") or (ROOT / word).is_file(), word


@pytest.mark.parametrize("script", blocks("bash"))
def test_every_script_of_the_page_is_bash(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("settings", [*blocks("yaml"), *re.findall(r"`(\w+: \{[^`]+\})`", PAGE)])
def test_every_setting_of_the_page_is_taken(settings):
    assert loads(yaml.safe_dump({**STUDY, **yaml.safe_load(settings)}), "study.yaml").name == "small"


def test_the_image_has_a_python_that_the_project_takes_and_its_pins():
    [python] = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert "--constraint constraints.txt" in DOCKERFILE


def test_the_image_copies_what_is_there_and_all_that_the_build_reads():
    needed = {"pyproject.toml", "constraints.txt", "diffsearch", PROJECT["readme"], *PROJECT["license-files"]}
    assert needed <= set(copied())
    for name in copied():
        assert (ROOT / name).exists() and name in KEPT, name
    assert set(KEPT) == set(copied()) and IGNORED[0] == "*"


def test_the_image_is_not_roots_and_begins_with_diffsearch():
    order = [line.split()[0] for line in DOCKERFILE.splitlines() if line[:1].isupper()]
    assert order.index("USER") < order.index("ENTRYPOINT") and 'ENTRYPOINT ["diffsearch"]' in DOCKERFILE
    assert set(re.findall(r'VOLUME \["(\S+)", "(\S+)"\]', DOCKERFILE)) == {("/work", "/cache")}
