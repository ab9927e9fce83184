"""Commands about a study: what it would cost, where it stands, what came of it."""

from __future__ import annotations

import time
from pathlib import Path

import click

from diffsearch.cli.places import (
    SHORT_KEY,
    Refused,
    asked_for,
    folders,
    open_folder,
    open_store,
    set_option,
    store_option,
    study_file,
    tracking_option,
)
from diffsearch.cli.words import size


@click.command()
@study_file
@set_option
@store_option
@click.option("--workers", type=click.IntRange(min=1), help="To estimate the time for.  [default: the cores here]")
@click.option("--no-calibrate", is_flag=True, help="Only count: time nothing, measure no floor.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def plan(
    file: Path, overrides: tuple[str, ...], store: Path | None, workers: int | None, no_calibrate: bool, as_json: bool
) -> None:
    """What a study would cost, and what of it the store has.

    Runs nothing but a few seconds of timing.
    """
    from diffsearch.cli.waiting import waiting

    with waiting(f"reading {file}", show=not as_json) as wait:
        from diffsearch import api
        from diffsearch.cli import plan_screen

        study = api.load(file, overrides, store=store)
        wait("timing a few steps")
        made = study.plan(workers=workers, calibrate=not no_calibrate)
        wait("measuring the floor")
        screen = plan_screen.Screen.of(study, made, measure=not no_calibrate)
    click.echo(screen.json() if as_json else screen.text())


@click.command()
@click.argument("target", metavar="[STUDY|FILE]", required=False)
@store_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, one object a study.")
def status(target: str | None, store: Path | None, as_json: bool) -> None:
    """Where a study stands, or all studies of the store."""
    from diffsearch.cli import standing

    found = [open_folder(target, store)] if target else list(folders(open_store(store)))
    if not found:
        raise Refused(f"no study in {store or '.diffsearch'} yet.")
    standings = [standing.Standing.of(folder) for folder in found]
    if as_json:
        for each in standings:
            click.echo(each.json())
    elif target:
        click.echo(standings[0].text())
    else:
        click.echo(standing.table(standings))


@click.command()
@click.argument("run_key", metavar="RUN")
@click.option("--study", help="Where several studies ask for that run.")
@store_option
def stop(run_key: str, study: str | None, store: Path | None) -> None:
    """Stop one run of a running study at its next milestone.

    It keeps the scores that it has earned.
    """
    from diffsearch.store import lease

    found = asked_for(open_store(store), run_key, study)
    live = [(folder, asked) for folder, asked in found if lease.is_held(folder.path / "lease")]
    if not live:
        names = ", ".join(sorted({folder.name for folder, _ in found}))
        raise Refused(f"study {names} isn't being run now, so there is nothing to stop.")
    going = [(folder, asked) for folder, asked in live if folder.ledger.end_of(asked) is None]
    if not going:
        ended = live[0][0].ledger.end_of(live[0][1])
        raise Refused(f"run {live[0][1].run_key[:SHORT_KEY]} has ended already: {ended.state if ended else 'unknown'}.")
    for folder, asked in going:
        requests = folder.path / "stop"
        requests.mkdir(parents=True, exist_ok=True)
        (requests / asked.run_key).touch()
        reached = max((record.epoch for record in folder.store.run(asked.run_key).epochs()), default=0)
        ahead = [epoch for epoch in asked.milestones if epoch >= reached] or [asked.milestones[-1]]
        last = ", which is its last" if ahead[0] == asked.milestones[-1] else ""
        when = f"the next milestone it reaches: epoch {ahead[0]}{last}."
        click.echo(f"{folder.name}: run {asked.run_key[:SHORT_KEY]} stops at {when}")


@click.command()
@click.argument("target", metavar="STUDY")
@store_option
@click.option(
    "--csv", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True), help="Write there; - for stdout."
)
@click.option("--parquet", type=click.Path(dir_okay=False, path_type=Path), help="Write there.")
@click.option("--sort", metavar="COLUMN", help="[default: the objective, best first]")
def table(target: str, store: Path | None, csv: Path | None, parquet: Path | None, sort: str | None) -> None:
    """Every evaluation of a study, one a row."""
    from diffsearch.cli import table_screen

    history = open_folder(target, store).history()
    rows = table_screen.sorted_rows(history, sort)
    if csv is not None:
        text = rows.to_csv(index=False, lineterminator="\n")
        click.echo(text, nl=False) if str(csv) == "-" else csv.write_text(text)
    if parquet is not None:
        rows.to_parquet(parquet, index=False)
    written = [str(path) for path in (csv, parquet) if path is not None and str(path) != "-"]
    if written:
        click.echo(f"{len(rows)} evaluations in {' and '.join(written)}")
    if csv is None and parquet is None:
        table_screen.show(history, rows)


@click.command()
@click.argument("target", metavar="STUDY")
@store_option
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def best(target: str, store: Path | None, as_json: bool) -> None:
    """The winner: score, run, and settings to copy as YAML."""
    import json
    import textwrap

    from diffsearch.api import settings_yaml
    from diffsearch.cli import endings
    from diffsearch.report.phrases import winner_note
    from diffsearch.report.ranks import winner

    history = open_folder(target, store).history()
    found = winner(history)
    if found is None:
        raise Refused(f"study '{history.name}' has no score yet: `diffsearch run` it first.")
    yaml = settings_yaml(history.name, history.objective, found.run, found.sheet)
    if as_json:
        told = {**endings.best_facts(history, found), "evaluation": found.sheet.key, "yaml": yaml}
        click.echo(json.dumps(told, allow_nan=False))
        return
    note = winner_note(found).replace(f"`{found.run.key[:SHORT_KEY]}`", found.run.key)
    for line in (f"{history.name}: {endings.winner_line(history)}", note):
        click.echo(textwrap.fill(line, 100, initial_indent="# ", subsequent_indent="#   "))
    click.echo(yaml, nl=False)


@click.command(name="next")
@click.argument("target", metavar="STUDY")
@store_option
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="[default: stdout]")
def next_(target: str, store: Path | None, output: Path | None) -> None:
    """What to try next, as a study file that is ready to run.

    The report has the same text. Where the data supports no other space, it says so and writes nothing.
    """
    from diffsearch.cli.waiting import waiting

    folder = open_folder(target, store)
    with waiting("reading the study"):
        from diffsearch import api

        found = api.open_study(folder.name, store=folder.store.root).next()
    if not found.text:
        raise Refused(found.words)
    if output is None:
        click.echo(found.text, nl=False)
        return
    if output.exists():
        raise Refused(f"{output} exists already.")
    output.write_text(found.text, encoding="utf-8")
    click.echo(f"{output}: changes {', '.join(found.changed)}. {found.words}")


@click.command()
@click.argument("targets", metavar="STUDY...", nargs=-1, required=True)
@store_option
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="[default: reports/STUDY]")
@tracking_option
@click.option("--from-store", is_flag=True, help="Read the store and leave MLflow alone.")
@click.option(
    "--published",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Printed numbers to set beside the study's.  [default: published.yaml beside its file]",
)
def report(
    targets: tuple[str, ...],
    store: Path | None,
    output: Path | None,
    tracking_uri: str | None,
    from_store: bool,
    published: Path | None,
) -> None:
    """Write the report of a study, or compare several.

    The studies need not be finished.
    """
    from diffsearch.cli.waiting import waiting

    if published is not None and len(targets) > 1:
        raise Refused("--published stands beside one study: name that one alone.")
    found = [open_folder(target, store) for target in targets]
    with waiting("writing the report"):
        from diffsearch import api

        studies = [api.open_study(folder.name, store=folder.store.root) for folder in found]
        path = api.write_report(studies, output, tracking_uri=tracking_uri, from_store=from_store, published=published)
    click.echo(path)


@click.command()
@click.argument("targets", metavar="STUDY...", nargs=-1, required=True)
@store_option
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="A .tar.xz file.")
def archive(targets: tuple[str, ...], store: Path | None, output: Path) -> None:
    """Pack the records of studies, without networks: a small store.

    `tar xf FILE -C DIRECTORY` makes a store of it, from which tables, reports and MLflow's pages can be made again.
    """
    found = [open_folder(target, store) for target in targets]
    if len({folder.store.root for folder in found}) > 1:
        raise Refused("the studies lie in several stores: pack each store's by themselves.")
    from diffsearch.report.album import FILE as ALBUM
    from diffsearch.report.ranks import winner
    from diffsearch.study.archive import archive as pack

    pictures = [folder.path / ALBUM for folder in found]
    for folder in found:
        won = winner(folder.history())
        sheets = () if won is None else (won.sheet, *(won.configuration.sheets if won.configuration else ()))
        pictures += [folder.store.run(sheet.run_key).picture(sheet.key) for sheet in sheets]
    files = pack(found, output.absolute(), pictures)
    click.echo(f"{output}: {files:,} files, {size(output.stat().st_size)}")


@click.command()
@click.argument("targets", metavar="STUDY...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every study in the store.")
@store_option
@tracking_option
def sync(targets: tuple[str, ...], every: bool, store: Path | None, tracking_uri: str | None) -> None:
    """Rebuild MLflow from the store."""
    from diffsearch.cli.waiting import waiting

    if every == bool(targets):
        raise Refused("name the studies to sync, or say --all.")
    found = list(folders(open_store(store))) if every else [open_folder(target, store) for target in targets]
    from diffsearch.study import tracking

    for folder in found:
        uri = tracking.tracking_uri(folder.store, tracking_uri)
        began = time.monotonic()
        with waiting(f"{folder.name}: writing to {uri}"):
            count = tracking.sync(folder, uri)
        click.echo(f"{folder.name}: {count} runs in MLflow at {uri}, {time.monotonic() - began:.1f} s")


COMMANDS = (plan, status, stop, table, best, next_, report, archive, sync)
