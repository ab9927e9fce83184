"""`diffsearch run`: finish a study."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffsearch.cli.places import Refused, set_option, store_option, study_file, tracking_option

if TYPE_CHECKING:
    from diffsearch.api import Study
    from diffsearch.cli.streams import Terminal
    from diffsearch.cli.watch import Watcher
    from diffsearch.study.driver import Summary

LOG = "ray.log"  # in the study's folder: what Ray and its workers write while it runs
FAILED, INTERRUPTED = 1, 130


@click.command()
@study_file
@set_option
@store_option
@click.option("--address", help="Of a running Ray cluster, `auto` for the one here.  [default: one of its own]")
@click.option(
    "--workers", type=click.IntRange(min=0), help="Runs at once here; 0: in this process.  [default: its cores]"
)
@tracking_option
@click.option("--quiet", "-q", is_flag=True, help="Only the last lines.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an event on stdout, and nothing else there.")
@click.option("--retry-failed", is_flag=True, help="Try runs again that failed, ran out of memory or were killed.")
@click.option("--no-report", is_flag=True, help="Write no report at the end.")
@click.pass_context
def run(
    ctx: click.Context,
    file: Path,
    overrides: tuple[str, ...],
    store: Path | None,
    address: str | None,
    workers: int | None,
    tracking_uri: str | None,
    quiet: bool,
    as_json: bool,
    retry_failed: bool,
    no_report: bool,
) -> int:
    """Finish a study: compute what the store lacks of it.

    The same command goes on after a stop, a kill or a change of the file. Ctrl-C once finishes the writes under way.
    """
    from diffsearch.cli.streams import Terminal as Streams

    if quiet and as_json:
        raise Refused("--quiet and --json: choose one.")
    began = time.monotonic()
    with Streams() as terminal, _watcher(terminal, quiet, as_json) as watcher:
        watcher.phase(f"reading {file}")
        from diffsearch import api

        study = api.load(file, overrides, store=store)
        _introduce(watcher, study)
        with terminal.diverted(study.store.study(study.name) / LOG):
            watcher.phase("starting")
            summary = study.run(
                address=address,
                workers=workers,
                tracking_uri=tracking_uri,
                observer=watcher,
                command=ctx.find_root().obj,
                retry_failed=retry_failed,
            )
            return _finish(watcher, study, summary, began, tracking_uri, no_report)


def _watcher(terminal: Terminal, quiet: bool, as_json: bool) -> Watcher:
    from diffsearch.cli.watch import Json, Lines, Watcher

    if quiet:
        return Watcher(terminal)
    if as_json:
        return Json(terminal)
    from diffsearch.cli.live import Display, can_redraw

    return Display(terminal) if can_redraw(terminal) else Lines(terminal)


def _introduce(watcher: Watcher, study: Study) -> None:
    watcher.name = study.name
    watcher.budget_s = study.spec.budget.wall_s
    watcher.axes = study.spec.axes


def _finish(
    watcher: Watcher, study: Study, summary: Summary, began: float, tracking_uri: str | None, no_report: bool
) -> int:
    """The last words, the report and the exit code."""
    from diffsearch.cli import endings

    history = summary.folder.history()
    if summary.interrupted:
        watcher.stopped(endings.facts(history, summary, None))
        return INTERRUPTED
    report = None if no_report else _report(watcher, study, tracking_uri)
    if watcher.begun:
        lines = [
            endings.winner_line(history),
            endings.cost_line(history),
            endings.places_line(report, study.store.root),
        ]
    else:
        lines = [endings.stored_line(history, report, time.monotonic() - began)]
    watcher.end(lines, endings.facts(history, summary, report))
    return FAILED if endings.all_failed(history) else 0


def _report(watcher: Watcher, study: Study, tracking_uri: str | None) -> Path:
    """The report, written anew unless it is there and nothing has happened since."""
    from diffsearch import api
    from diffsearch.study.ledger import FILE

    path = api.REPORTS / study.name / "report.md"
    ledger = study.store.study(study.name) / FILE
    if not watcher.begun and path.exists() and path.stat().st_mtime >= ledger.stat().st_mtime:
        return path
    watcher.phase("writing the report")
    return study.report(tracking_uri=tracking_uri)


COMMANDS = (run,)
