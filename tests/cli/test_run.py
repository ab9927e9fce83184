"""`diffsearch run`: what it prints in each mode, its exit codes, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import HOLD, NO_MLFLOW, STUDY, Cli

HERE = ("--workers", 0, "--tracking-uri", NO_MLFLOW)


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_is_one_object_a_line_from_the_beginning_to_the_summary(finished: Path):
    said = events((finished / "said.jsonl").read_text())
    names = [event["event"] for event in said]
    assert names[0] == "began" and names[-1] == "summary"
    assert [names.count(each) for each in ("run", "ended", "epoch", "evaluation")] == [2, 2, 4, 4]
    summary = said[-1]
    winner = summary["winner"]
    assert isinstance(winner, dict) and winner["seeds"] == 1 and winner["interval_95"] is None
    assert summary["report"] == "reports/two/report.md" and (finished / "reports/two/report.md").is_file()
    scores = [e["scores"]["fd-digits"]["value"] for e in said if e["event"] == "evaluation"]  # type: ignore[index]
    assert min(scores) == winner["score"]


def test_again_says_in_one_line_that_everything_is_there_and_leaves_the_report(cli: Cli, at: Path):
    report = at / "reports/two/report.md"
    os.utime(report, (2e9, 2e9))
    said = cli("run", "study.yaml", *HERE)
    assert said.exit_code == 0
    assert said.stdout.startswith(
        "two: everything is in the store (2 runs, 4 evaluations). Report: reports/two/report.md"
    )
    assert len(said.stdout.splitlines()) == 1 and report.stat().st_mtime == 2e9


def test_a_report_that_is_gone_is_written_again(cli: Cli, at: Path):
    (at / "reports/two/report.md").unlink()
    cli("run", "study.yaml", *HERE)
    assert (at / "reports/two/report.md").is_file()


def test_without_a_terminal_each_event_is_a_line_and_the_last_three_are_the_answer(cli: Cli, at: Path):
    said = cli("run", "study.yaml", "--set", "training.epochs=[1,2,3]", "--no-report", *HERE)
    lines = said.stdout.splitlines()
    assert "two: " in lines[0] and "worker" in lines[0]
    assert sum("epoch 3/3, loss" in line for line in lines) == 2, "epochs 1 and 2 are in the store"
    assert not any("epoch 2/3, loss" in line for line in lines)
    assert "fd-digits" in lines[-3] and "One run, so no interval" in lines[-3]
    assert "of 12 epochs trained" in lines[-2] and lines[-2].endswith("the same command.")
    assert lines[-1].startswith("report  ") and lines[-1].endswith("diffsearch ui")


def test_quiet_leaves_the_answer_alone(cli: Cli, at: Path):
    said = cli("run", "study.yaml", "--set", "seed=5", "--quiet", "--no-report", *HERE)
    assert said.exit_code == 0 and len(said.stdout.splitlines()) == 3


def test_every_mistake_of_a_file_is_told_without_a_traceback_and_nothing_is_run(cli: Cli, at: Path):
    (at / "bad.yaml").write_text(STUDY.replace("linear-noise", "linear-nois").replace("search:", "serch:"))
    said = cli("run", "bad.yaml")
    assert said.exit_code == 2 and said.stdout == ""
    assert "bad.yaml:4:" in said.stderr and "Did you mean 'linear-noise'?" in said.stderr
    assert "2 errors; nothing was run." in said.stderr and "Traceback" not in said.stderr
    assert cli("run", "absent.yaml").exit_code == 2
    assert cli("run", "study.yaml", "--quiet", "--json").exit_code == 2
    assert cli("run", "study.yaml", "--set", "training.epochs=[0]").exit_code == 2


def test_a_study_that_somebody_else_runs_is_left_to_them(cli: Cli, at: Path):
    lease = at / ".diffsearch/studies/two/lease"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lease)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        said = cli("run", "study.yaml", *HERE)
        standing = cli("status", "two")
        holder.kill()
    assert said.exit_code == 1 and f"is being run by process {holder.pid}" in said.stderr
    assert f"running (process {holder.pid}" in standing.stdout


def test_a_study_of_which_every_run_fails_ends_with_1_and_its_cause(cli: Cli, at: Path):
    said = cli("run", "study.yaml", "--set", "training.learning_rate=1e30", "--set", "name=wild", *HERE)
    assert said.exit_code == 1
    assert "Nothing won: 2 runs diverged (" in said.stdout and "epoch 1" in said.stdout


@pytest.mark.parametrize("given", [["run"], ["runn"], ["run", "study.yaml", "--workers", "-1"], []])
def test_wrong_words_end_with_2(cli: Cli, at: Path, given: list[str]):
    assert cli(*given).exit_code == 2


def test_help_is_quick_because_it_imports_nothing_heavy():
    code = """
import sys
from diffsearch.cli import app
try:
    app.main(["--help"])
except SystemExit:
    pass
heavy = {"torch", "ray", "mlflow", "pandas", "numpy", "scipy", "optuna", "rich", "yaml"} & set(sys.modules)
assert not heavy, heavy
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "run " in said.stdout and "doctor" in said.stdout
