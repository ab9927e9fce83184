"""The live block, at widths that terminals have, and the streams that keep Ray out of it."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from diffsearch.cli import app
from diffsearch.cli.block import Frame
from diffsearch.records import Evaluation, Outcome, Score, State
from diffsearch.space.axes import points, settings_at
from diffsearch.space.load import loads
from diffsearch.space.settings import Choice, SamplingPoint
from diffsearch.study.conductor import Task
from diffsearch.study.ledger import Asked
from diffsearch.study.progress import Progress
from diffsearch.trial import Sampled, Scored, TrialRequest
from tests.cli.conftest import NO_MLFLOW

SPEC = loads(
    """
name: mnist_unet
data: {dataset: mnist-5k}
model: {kind: unet, channels: [[8, 16, 32], [16, 32, 64]]}
diffusion: {steps: [5, 15], noise_process: [cosine, linear-alpha-bar]}
training:
  loss: [x0-l2, mu-tilde-l2]
  batch_size: [32, 256]
  normalization: [[-1, 1], [0, 1]]
  learning_rate: {log: [3e-4, 3e-3]}
  epochs: [1, 3, 9]
evaluation: {objective: fd-digits, samples: 1000}
search: {algorithm: random, runs: 20}
"""
)


def task(index: int) -> Task:
    point = list(points(SPEC.axes, SPEC.fixed))[index]
    where = SamplingPoint(Choice("ancestral"), None, 0)
    key = f"{index:02d}abcdef01234567"
    settings = settings_at(SPEC, point, 0)
    asked = Asked(key, settings, point, "search", index + 1, "", "", (1, 3, 9), (where,), 1000, 0, 0, 0)
    request = TrialRequest(key, settings, (1, 3, 9), (where,), ("fd-digits",), 1000, 0, Path(), "test")
    return Task(key, asked, request, None, (1, 3, 9))


def scored(of: Task, value: float) -> Scored:
    scores = {"fd-digits": Score(value, 1000, "0")}
    evaluation = Evaluation("e", of.asked.run_key, 3, of.asked.points[0], 1000, 0, scores, 1, 0.1, 0.1)
    return Scored(evaluation, True, False)


@pytest.fixture
def progress() -> Progress:
    """Nine runs: five ended well, two badly, two under way."""
    made = Progress("fd-digits", 1.0, 20, tuple(axis.path for axis in SPEC.axes))
    for index in range(9):
        of = task(index * 7)
        made.heard(of, None)
        if index < 5:
            made.heard(of, scored(of, 10.0 + index))
            made.heard(of, Outcome(State.STOPPED_EARLY if index else State.FINISHED))
        elif index < 7:
            made.heard(of, Outcome(State.DIVERGED, "loss became NaN at epoch 1, step 31"))
        else:
            made.heard(of, Sampled(3, 1000, 1000, 12345.0))
    return made


def drawn(progress: Progress, width: int, height: int = 30, last: str = "") -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(Frame("mnist_unet", SPEC.axes, None, width, height).draw(progress, last))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_block_fits_and_keeps_its_columns(progress: Progress, width: int):
    lines = drawn(progress, width)
    assert max(map(len, lines)) < width
    assert lines[0].startswith("mnist_unet  ━")
    assert "7/20 done · 2 running · 4 stopped early · 2 diverged" in " ".join(lines[1:3])
    head = next(line for line in lines if line.startswith(" best"))
    best = lines[lines.index(head) + 1]
    assert best[10] == "1" and best.index("00abcd") == head.index("run")
    assert [line[10:16] for line in lines if line.startswith(" running")] == ["49abcd"]
    assert any("sampling 1,000/1,000" in line for line in lines)
    assert sum(line.startswith(" diverged") for line in lines) == 2


def test_the_block_says_which_budget_ended_the_search(progress: Progress):
    progress.search_ended = "search.runs (20)"
    assert not any("ended" in line for line in drawn(progress, 140))
    progress.search_ended = "budget.wall (10m)"
    assert "2 diverged · search ended by budget.wall (10m)" in drawn(progress, 140)[1]


def test_a_wider_terminal_shows_more_axes(progress: Progress):
    counts = [len(next(line for line in drawn(progress, w) if line.startswith(" best")).split()) for w in (60, 80, 140)]
    assert counts == sorted(counts) and counts[0] < counts[-1] == 4 + len(SPEC.axes)


def test_the_block_never_outgrows_the_terminal(progress: Progress):
    for index in range(30, 60):
        progress.heard(task(index), None)
    lines = drawn(progress, 100, height=24, last="^C")
    assert len(lines) <= 24 and any("more" in line for line in lines)


def test_before_the_first_score_it_says_so(progress: Progress):
    fresh = Progress("fd-digits", 1.0, None, progress.axes)
    assert any("no score" in line for line in drawn(fresh, 100))


def test_a_killed_attempt_that_runs_again_is_not_counted_as_done(progress: Progress):
    of = task(63)
    progress.heard(of, None)
    progress.heard(of, Outcome(State.KILLED, "its worker process died"))
    progress.heard(replace(of, id="again"), None)
    assert progress.count(State.KILLED) == 0 and progress.done == 7


def test_what_others_write_to_the_descriptors_goes_into_a_file(tmp_path: Path):
    code = """
import os, sys
from pathlib import Path
from diffsearch.cli.streams import Terminal
with Terminal() as terminal:
    with terminal.diverted(Path(sys.argv[1])):
        os.write(1, b"(raylet) A worker died\\n")
        os.system("echo from a child >&2")
        print("python's own")
        terminal.out.write("ours\\n")
    print("after")
"""
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True, check=True
    )
    assert sorted(said.stdout.splitlines()) == ["after", "ours"] and said.stderr == ""
    assert {"(raylet) A worker died", "from a child", "python's own"} <= set(
        (tmp_path / "log").read_text().splitlines()
    )


def on_a_terminal(words: list[str]) -> tuple[int, str]:
    """`diffsearch words...` in a forked process whose streams are a terminal: its exit code and what it wrote there."""
    child, terminal = pty.fork()
    if child == 0:
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ["TERM"] = "xterm"
        code = 1
        try:
            app.main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)  # a forked child must not run the rest of the tests
    said = b""
    with contextlib.suppress(OSError):  # what Linux says where others say end of file
        while chunk := os.read(terminal, 65536):
            said += chunk
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.decode()


def test_on_a_terminal_it_redraws_in_place_and_leaves_the_answer_alone(at: Path):
    words = ["run", "study.yaml", "--workers", "0", "--tracking-uri", NO_MLFLOW, "--set", "seed=9", "--no-report"]
    code, text = on_a_terminal(words)
    assert code == 0 and "━" in text and "\x1b[2K" in text
    lines = text.rsplit("\x1b[2K", 1)[1].replace("\r", "").strip().splitlines()
    assert "fd-digits" in " ".join(lines[:2]) and lines[-1].startswith("report  ")
