"""`diffsearch replay`, and what it says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.study.tables import made_up


@pytest.fixture
def table(laboratory, tmp_path) -> str:
    spec = laboratory.spec({"diffusion.steps": [2, 3, 4], "training.loss": ["x0-l2", "v-l2"]})
    path = tmp_path / "table.parquet"
    made_up(spec, lambda point, epoch, *_: 10.0 * point["diffusion.steps"] / epoch).write(path)
    return str(path)


def test_replay_shows_the_best_score_over_simulated_time(cli: Cli, table: str):
    said = cli("replay", table, "--algorithm", "random", "--stopping", "asha", "--workers", "6", "--seeds", "3")
    assert said.exit_code == 0, said.stderr
    assert "6 points, 1 training seed · epochs 1, 2 · fd-digits" in said.stdout
    assert "random · stopping asha · 6 workers · reuse by key · 3 replays in" in said.stdout
    assert "0:06                    10             [10, 10]                    10" in said.stdout
    assert "not all have a score yet" in said.stdout.splitlines()[4]


def test_replay_tells_every_trace_as_json_and_csv(cli: Cli, table: str, tmp_path: Path):
    file = tmp_path / "traces.csv"
    asked = [
        "replay",
        table,
        "--algorithm",
        "grid",
        "--seeds",
        "2",
        "--first-seed",
        "5",
        "--no-reuse",
        "--overhead",
        "0",
    ]
    told = json.loads(cli(*asked, "--json", "--csv", str(file), "--trials", "4").stdout)
    assert (told["trials"], told["reuse"], told["points"], len(told["traces"])) == (4, "none", 6, 2)
    assert told["traces"][0][-1]["epochs"] == 4 * (1 + 2)
    rows = list(csv.DictReader(file.open()))
    assert {row["seed"] for row in rows} == {"5", "6"} and float(rows[-1]["worker_s"]) == 4 * (3 * 2.0 + 2 * 0.75)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--algorithm", "randon"], "Did you mean 'random'?"),
        (["--stopping", "HyperBandScheduler"], "needs Ray"),
        (["--set", "training.epochs=[1, 7]"], "nothing at epoch 7"),
    ],
)
def test_what_can_not_be_replayed_is_bad_input(cli: Cli, table: str, options: list[str], said: str):
    answer = cli("replay", table, *options)
    assert answer.exit_code == 2 and said in answer.stderr
