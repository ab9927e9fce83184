"""`diffsearch replay`: search a recorded table in simulated time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffsearch.cli.places import Refused, set_option
from diffsearch.cli.words import clock, several

if TYPE_CHECKING:
    from diffsearch.study.replay import Replays
    from diffsearch.study.simulated import Moment

SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # of the simulated time, at which the best score is shown


@click.command()
@click.argument("table", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--algorithm", help="Of the search, e.g. random, tpe, grid, sequential.  [default: the table's study's]")
@click.option("--stopping", help="Rule, e.g. none, asha, median, curves.  [default: the table's study's]")
@click.option("--trials", type=click.IntRange(min=1), help="Runs that the search may ask for.  [default: all points]")
@click.option("--workers", type=click.IntRange(1, 1000), default=1, show_default=True, help="Simulated ones.")
@click.option("--seeds", type=click.IntRange(min=1), default=30, show_default=True, help="Replays.")
@click.option("--first-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the first replay.")
@click.option("--no-reuse", is_flag=True, help="Train from the start for each evaluation, as if no key were known.")
@click.option("--overhead", type=click.FloatRange(min=0), default=0.05, show_default=True, help="Seconds a task.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes here.")
@set_option
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every trace there.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, traces included.")
def replay(
    table: Path,
    algorithm: str | None,
    stopping: str | None,
    trials: int | None,
    workers: int,
    seeds: int,
    first_seed: int,
    no_reuse: bool,
    overhead: float,
    jobs: int,
    overrides: tuple[str, ...],
    csv_file: Path | None,
    as_json: bool,
) -> None:
    """Search a recorded table in simulated time.

    The search and stopping code is that of `run`; instead of training, each run takes the time that it took when it
    was recorded.
    """
    from diffsearch.cli.waiting import waiting

    given = {"search.algorithm": algorithm, "search.stopping": stopping, "search.runs": trials}
    told = [f"{path}={value}" for path, value in given.items() if value is not None]
    with waiting(f"reading {table}", show=not as_json) as wait:
        from diffsearch.study.recording import Recording
        from diffsearch.study.replay import Replays, replay_all, study
        from diffsearch.study.simulated import Costs

        recording = Recording.read(table)
        costs = Costs(overhead, "none" if no_reuse else "keys")
        replays = Replays(recording, study(recording, [*told, *overrides]), workers, costs)
        began, traces = time.monotonic(), []
        for trace in replay_all(replays, table, range(first_seed, first_seed + seeds), jobs):
            traces.append(trace)
            wait(f"replayed {len(traces)} of {seeds} seeds")
        took_s = time.monotonic() - began
    if csv_file is not None:
        _write(csv_file, traces, first_seed)
    click.echo(_json(replays, traces, took_s) if as_json else _text(replays, traces, took_s))


def _text(replays: Replays, traces: list[list[Moment]], took_s: float) -> str:
    import numpy as np

    from diffsearch.study.traces import at, band

    spec, recording = replays.spec, replays.recording
    seeds = sorted(int(seed) for seed in recording.frame["seed"].unique())
    ends = [trace[-1] for trace in traces]
    whole_s = float(np.median([end.simulated_s for end in ends]))
    places = np.asarray([share * whole_s for share in SHARES])
    best, truth = (band(at(traces, places, "simulated_s", what)) for what in ("best", "truth"))
    reuse = "reuse by key" if replays.costs.reuse == "keys" else "each evaluation by itself"
    objective = spec.evaluation.objective
    lines = [
        f"{spec.name}   {several(replays.points, 'point')}, {several(len(seeds), 'training seed')} · "
        f"epochs {', '.join(map(str, spec.milestones))} · {objective}",
        f"{spec.search.algorithm} · stopping {spec.search.stopping} · {several(replays.workers, 'worker')} · {reuse} · "
        f"{len(traces)} replays in {took_s:.1f} s",
        "",
        f"{'simulated':>12}  {'best ' + objective:>20}  {'95 %':>19}  {'its mean over seeds':>20}",
    ]
    for i, place in enumerate(places):
        if not np.isfinite(best.iqm[i]):
            lines.append(f"{clock(float(place)):>12}  {'not all have a score yet':>20}")
            continue
        interval = f"[{best.low[i]:.4g}, {best.high[i]:.4g}]"
        lines.append(f"{clock(float(place)):>12}  {best.iqm[i]:>20.4g}  {interval:>19}  {truth.iqm[i]:>20.4g}")
    means = {name: float(np.mean([getattr(end, name) for end in ends])) for name in ends[0]._fields}
    lines += [
        "",
        f"A replay, on average: {means['runs']:,.1f} runs, {means['epochs']:,.1f} epochs, "
        f"{means['images']:,.0f} images trained, {means['evaluations']:,.1f} evaluations, "
        f"{clock(means['worker_s'])} of workers' time.",
        "Best score: interquartile mean over the replays, with its bootstrap interval.",
    ]
    return "\n".join(lines)


def _json(replays: Replays, traces: list[list[Moment]], took_s: float) -> str:
    spec = replays.spec
    told = {
        "study": spec.name,
        "algorithm": str(spec.search.algorithm),
        "stopping": str(spec.search.stopping),
        "trials": spec.search.runs,
        "workers": replays.workers,
        "reuse": replays.costs.reuse,
        "points": replays.points,
        "took_s": round(took_s, 3),
        "traces": [[moment._asdict() for moment in trace if moment.best < float("inf")] for trace in traces],
    }
    return json.dumps(told, allow_nan=False)


def _write(path: Path, traces: list[list[Moment]], first_seed: int) -> None:
    import pandas as pd

    rows = [{"seed": first_seed + i, **moment._asdict()} for i, trace in enumerate(traces) for moment in trace]
    try:
        pd.DataFrame(rows).to_csv(path, index=False)
    except OSError as error:
        raise Refused(f"{path}: can't be written: {error.strerror or error}") from error


COMMANDS = (replay,)
