"""Commands that read a study's folder: `plan status stop table best report sync`."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from diffsearch.cli import table_screen
from diffsearch.space.load import loads
from tests.cli.conftest import HOLD, STUDY, Cli
from tests.report.conftest import make_history


def test_plan_counts_what_is_asked_what_the_store_has_and_what_is_left(cli: Cli, at: Path):
    said = cli("plan", "study.yaml", "--no-calibrate", "--set", "training.epochs=[1,2,4]")
    lines = said.stdout.splitlines()
    assert lines[0].startswith("two   200 grey images 28×28 · fd-digits on 70 samples")
    assert "loss 2   → 2 points" in said.stdout and "epochs 1 → 2 → 4" in said.stdout
    epochs = next(line.split() for line in lines if line.strip().startswith("epochs "))
    assert epochs[:3] == ["epochs", "14", "8"], "1 + 2 + 4 alone, 4 along one run, twice"


def test_plan_says_where_a_sweep_is_scored_and_what_each_choice_costs(cli: Cli, at: Path):
    """2 runs, 2 milestones, T = 2, 70 images: 280 calls a milestone for both points, 140 for the first alone."""
    sweep = ("--set", "sampling.ema=[0,100]", "--no-calibrate")
    finals = ("--set", "search.finalists={top: 1, repeats: 2}")
    text = " ".join(cli("plan", "study.yaml", *sweep, *finals, "--set", "sampling.at=auto").stdout.split())
    assert "scored at every milestone (auto: a run's training is worth 1.2 k network calls, its sweep" in text
    assert "its sweep milestones 280, last 140, finalists 0)" in text
    assert "calls of all sampling: milestones 1.7 k, last 1.4 k, finalists 1.1 k" in text
    told = json.loads(cli("plan", "study.yaml", *sweep, *finals, "--set", "sampling.at=last", "--json").stdout)
    assert (told["sweep"]["asked"], told["sweep"]["at"]) == ("last", "last")
    assert told["calls"] == {"milestones": 2 * 560 + 2 * 280, "last": 2 * 420 + 2 * 280, "finalists": 2 * 280 + 2 * 280}
    assert told["prefixes"]["samples"] == 2 * 3 * 70 + 2 * 2 * 70


def test_plan_says_what_a_screen_and_its_full_scores_cost(cli: Cli, at: Path):
    screen = ("--set", "evaluation.screen={objective: kd-digits, samples: 60, keep: 0.25}", "--no-calibrate")
    text = " ".join(cli("plan", "study.yaml", *screen).stdout.split())
    assert "kd-digits on 60 samples in the search (240 in all)" in text
    assert "the best 25 % then in full, without training: 1 evaluation, 70 samples" in text
    told = json.loads(cli("plan", "study.yaml", *screen, "--json").stdout)
    assert (told["screen_samples"], told["full"]) == (240, {"epochs": 0, "samples": 70})
    assert told["stopped"]["samples"] == 240 + 70 and told["sweep"] is None


def test_plan_says_how_much_of_the_space_constraints_refuse(cli: Cli, at: Path):
    """Of T = 2, 4 and 8 a bound of 4 calls leaves two thirds."""
    space = ("plan", "study.yaml", "--no-calibrate", "--set", "diffusion.steps=[2,4,8]")
    some = ("--set", "search.constraints=[network_calls <= 4]")
    told = json.loads(cli(*space, *some, "--json").stdout)
    assert told["refused"] == pytest.approx(1 / 3, abs=0.15)  # of 100 points that are drawn
    text = " ".join(cli(*space, *some).stdout.split())
    assert f"network_calls <= 4: about {told['refused']:.0%} of it is refused beforehand" in text
    none = " ".join(cli(*space, "--set", "search.constraints=[network_calls <= 8]").stdout.split())
    assert "network_calls <= 8: none of it is refused beforehand" in none
    assert "refused" not in cli(*space).stdout


def test_plan_measures_floor_and_speed(cli: Cli, at: Path):
    told = json.loads(cli("plan", "study.yaml", "--json", "--set", "training.epochs=[5]").stdout)
    assert told["bounds"]["floor"] < told["bounds"]["ceiling"]
    assert told["speed"]["images_per_s"] > 0 and told["wall_s"] > 0
    assert (told["runs"], told["left"]["epochs"]) == (2, 6), "epochs 1 and 2 of both runs are in the store"


def test_status_of_one_and_of_all(cli: Cli, at: Path):
    assert "two   at rest" in cli("status", "study.yaml").stdout
    assert "2 runs · 2 finished" in cli("status", "two").stdout
    assert "  search   ended by the last point of the space" in cli("status", "two").stdout
    assert cli("status").stdout.splitlines()[1].startswith("two  ")
    told = json.loads(cli("status", "--json").stdout)
    assert (told["study"], told["state"], told["runs"], told["finished"]) == ("two", "at rest", 2, 2)


@pytest.mark.parametrize("command", ["status", "table", "best", "next", "report"])
def test_a_study_that_the_store_lacks_is_bad_input(cli: Cli, at: Path, command: str):
    said = cli(command, "three")
    assert said.exit_code == 2 and "Studies there: two." in said.stderr


def test_reading_makes_no_store(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    said = cli("status")
    assert said.exit_code == 2 and "no store at .diffsearch" in said.stderr and not any(tmp_path.iterdir())


def test_table_goes_to_the_terminal_to_csv_and_to_parquet(cli: Cli, at: Path):
    rows = list(csv.DictReader(io.StringIO(cli("table", "two", "--csv", "-").stdout)))
    scores = [float(row["fd-digits"]) for row in rows]
    assert len(rows) == 4 and scores == sorted(scores), "best first"
    shown = cli("table", "two").stdout.splitlines()
    assert shown[0].split()[0] == "run" and len(shown) == 5 and shown[1].startswith(rows[0]["run"])
    cli("table", "study.yaml", "--csv", "a.csv", "--parquet", "a.parquet", "--sort", "epoch")
    assert list(pd.read_csv("a.csv")["epoch"]) == [1, 1, 2, 2]
    assert len(pd.read_parquet("a.parquet")) == 4
    wrong = cli("table", "two", "--sort", "epoc")
    assert wrong.exit_code == 2 and "Did you mean 'epoch'?" in wrong.stderr


def test_plan_names_no_reference_where_there_is_none(cli: Cli, at: Path):
    metric = ("--set", "evaluation.objective=is-digits", "--set", "evaluation.metrics=[is-digits]")
    first = cli("plan", "study.yaml", *metric, "--set", "evaluation.samples=100").stdout.splitlines()[0]
    assert re.search(r"is-digits on 100 samples · floor \d\.\d+, noise 1\.\d+$", first)


def test_table_shows_a_score_with_its_spread(capsys: pytest.CaptureFixture[str]):
    history = make_history(count=3)
    table_screen.show(history, table_screen.sorted_rows(history, None))
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert "kd-digits" in head and "_spread" not in head
    assert re.search(r"\d  +0\.\d+ ± 0\.\d+", first), "fd-digits without, kd-digits with"


def test_table_shows_the_bias_beside_a_frechet_distance(capsys: pytest.CaptureFixture[str]):
    history = make_history(count=3)
    runs = []
    for run in history.runs:
        sheets = [
            replace(sheet, scores={name: replace(score, bias=1.25) for name, score in sheet.scores.items()})
            for sheet in run.evaluations
        ]
        runs.append(replace(run, evaluations=tuple(sheets)))
    biased = replace(history, runs=tuple(runs))
    table_screen.show(biased, table_screen.sorted_rows(biased, None))
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert re.search(r"fd-digits +bias", head) and "_bias" not in head and re.search(r"\d  +1\.25 ", first)


def test_best_prints_a_study_file_that_loads(cli: Cli, at: Path):
    text = cli("best", "two").stdout
    assert text.startswith("# two: ") and "(1 seed, 70 samples; floor " in text
    plain = yaml.safe_load(text)
    assert plain["name"] == "two_best" and loads(text).axes == ()
    told = json.loads(cli("best", "two", "--json").stdout)
    assert told["run"] in text and told["seeds"] == 1


def test_next_prints_a_file_that_loads_or_says_why_there_is_none(cli: Cli, at: Path):
    """Two runs say nothing of their axis; their curves may say that scores still fall."""
    level(at, first=1.0)
    said = cli("next", "two")
    assert said.exit_code == 2 and "supports no other space" in said.stderr and not said.stdout
    level(at, first=3.0)
    said = cli("next", "two")
    assert said.exit_code == 0 and loads(said.stdout).milestones == (1, 2, 4)
    assert cli("next", "two", "-o", "next.yaml").exit_code == 0
    assert (at / "next.yaml").read_text() == said.stdout
    again = cli("next", "two", "-o", "next.yaml")
    assert again.exit_code == 2 and "exists already" in again.stderr


def level(at: Path, first: float) -> None:
    """The store with every score 100 but those of epoch 1, `first` times as much."""
    for file in (at / ".diffsearch/runs").glob("*/evaluations.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            for score in line["scores"].values():
                score["value"] = 100 * first if line["epoch"] == 1 else 100.0
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_report_is_written_where_it_is_asked_for(cli: Cli, at: Path):
    said = cli("report", "two", "--from-store", "-o", "elsewhere")
    assert said.stdout == "elsewhere/report.md\n" and (at / "elsewhere/report.md").read_text().startswith("# two")


PUBLISHED = """\
title: Losses
tables:
  - {name: loss, where: table 1, metric: fid, extractor: Inception, axis: training.loss,
     rows: [{value: x0-l2, score: 2}, {value: v-l2, score: 3}, {value: epsilon-l2, score: 4}]}
"""


def test_published_numbers_stand_beside_the_study(cli: Cli, at: Path, finished: Path):
    """From the file that is named, or from the one beside the study file that was run."""
    (at / "theirs.yaml").write_text(PUBLISHED)
    cli("report", "two", "--from-store", "--published", "theirs.yaml", "-o", "named")
    text = (at / "named/report.md").read_text()
    assert "## Published and measured" in text and "| epsilon-l2 |" in text and "not run" in text
    assert "Published and measured" not in (at / cli("report", "two", "--from-store").stdout.strip()).read_text()
    (at / "published.yaml").write_text(PUBLISHED)
    assert "## Published and measured" in (at / cli("report", "two", "--from-store").stdout.strip()).read_text()
    both = cli("report", "two", "two", "--published", "theirs.yaml")
    assert both.exit_code == 2 and "beside one study" in both.stderr


def test_a_mistake_in_published_numbers_is_told_before_anything_runs(cli: Cli, at: Path):
    (at / "published.yaml").write_text(PUBLISHED.replace("x0-l2", "x0-l3"))
    said = cli("plan", "study.yaml", "--no-calibrate")
    assert said.exit_code == 2 and "published.yaml:4:21: tables[1].rows[1]: unknown value 'x0-l3'" in said.stderr


def test_stop_asks_a_running_study_only(cli: Cli, at: Path):
    key = json.loads(cli("best", "two", "--json").stdout)["run"]
    assert "isn't being run now" in cli("stop", key[:6]).stderr
    assert cli("stop", "zzz").exit_code == 2
    folder = at / ".diffsearch/studies/two"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder / "lease")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        assert "has ended already: finished" in cli("stop", key).stderr
        ledger = folder / "ledger.jsonl"
        ended = f'"run_key": "{key}"'
        kept = [line for line in ledger.read_text().splitlines() if not ('"ended"' in line and ended in line)]
        ledger.write_text("\n".join(kept) + "\n")
        said = cli("stop", key[:7])
        holder.kill()
    assert said.exit_code == 0 and "epoch 2, which is its last" in said.stdout
    assert [path.name for path in (folder / "stop").iterdir()] == [key]


def test_sync_fills_an_empty_mlflow(cli: Cli, at: Path):
    assert cli("sync").exit_code == 2
    said = cli("sync", "--all", "--tracking-uri", f"sqlite:///{at}/fresh.db")
    assert said.exit_code == 0 and said.stdout.startswith("two: 2 runs in MLflow at sqlite:///")
    assert (at / "fresh.db").is_file()
    unreachable = cli("sync", "two", "--tracking-uri", "http://127.0.0.1:1")
    assert unreachable.exit_code == 1 and "doesn't answer" in unreachable.stderr


def test_an_archive_is_a_store_from_which_everything_but_networks_can_be_had_again(cli: Cli, at: Path):
    assert cli("report", "two", "--from-store", "-o", "before").exit_code == 0
    said = cli("archive", "two", "-o", "two.tar.xz")
    assert said.exit_code == 0 and said.stdout.startswith("two.tar.xz: "), said.output
    packed = (at / "two.tar.xz").read_bytes()
    assert cli("archive", "two", "-o", "two.tar.xz").exit_code == 0
    assert (at / "two.tar.xz").read_bytes() == packed
    with tarfile.open("two.tar.xz") as tar:
        assert not any("epoch-" in name or "latest" in name or "lease" in name for name in tar.getnames())
        tar.extractall("from-a-file", filter="data")
    for words in (["table", "two", "--csv", "-"], ["best", "two"]):
        assert cli(*words, "--store", "from-a-file").stdout == cli(*words).stdout
    assert cli("report", "two", "--from-store", "--store", "from-a-file", "-o", "after").exit_code == 0
    before, after = ((at / name / "report.md").read_text() for name in ("before", "after"))
    assert after.replace("from-a-file", ".diffsearch") == before
    for figure in (at / "before" / "figures").iterdir():
        assert (at / "after" / "figures" / figure.name).read_bytes() == figure.read_bytes()


def test_reading_commands_need_neither_torch_nor_ray_nor_mlflow(at: Path):
    code = """
import sys
from diffsearch.cli import app
for words in (["status"], ["table", "two"], ["best", "two"], ["stop", "abc"], ["gc", "--dry-run"]):
    try:
        app.main(words)
    except SystemExit:
        pass
heavy = {"torch", "ray", "mlflow", "optuna"} & set(sys.modules)
assert not heavy, heavy
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr


def test_a_store_that_the_study_file_names_is_found_from_its_path(cli: Cli, at: Path):
    (at / ".diffsearch").rename(at / "shelf")
    (at / "study.yaml").write_text(STUDY + "store: shelf\n")
    assert "two   at rest" in cli("status", "study.yaml").stdout
