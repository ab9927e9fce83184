"""`demo` refuses in one line what it can't show; the page itself is tested in tests/demo."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

import diffsearch.demo
from tests.cli.conftest import Cli


def test_without_gradio_it_says_how_to_have_it(cli: Cli, at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # Python's own way of saying that there is none
    monkeypatch.delitem(sys.modules, "diffsearch.demo.page", raising=False)
    monkeypatch.delattr(diffsearch.demo, "page", raising=False)  # where an earlier test imported it
    said = cli("demo", "two", "--port", _free_port())
    assert said.exit_code == 2 and "pip install 'diffsearch[demo]'" in said.stderr and "Traceback" not in said.output


def test_an_unknown_study_is_named_with_those_that_are(cli: Cli, at: Path) -> None:
    said = cli("demo", "tow")
    assert said.exit_code == 2 and "no study 'tow'" in said.stderr and "two" in said.stderr


def test_a_taken_port_and_a_strange_address_are_refused(cli: Cli, at: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = cli("demo", "two", "--port", other.getsockname()[1])
    assert taken.exit_code == 2 and "Choose another with --port" in taken.stderr
    strange = cli("demo", "two", "--host", "192.0.2.1")  # reserved for documentation: nobody's
    assert strange.exit_code == 2 and "nothing can answer at 192.0.2.1" in strange.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
