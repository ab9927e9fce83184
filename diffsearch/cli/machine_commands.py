"""Commands about this machine and the store as a whole: `init schema doctor ui gc`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from diffsearch.cli.places import DEFAULT_STORE, Refused, check_address, open_store, store_option, tracking_option
from diffsearch.cli.words import several, size

NOT_FINE = 1


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="[default: NAME.yaml]")
def init(folder: Path, output: Path | None) -> None:
    """Write a commented study file for a folder of images."""
    from diffsearch.data.folders import inspect_folder
    from diffsearch.space.starter import starter_text

    facts = inspect_folder(folder.expanduser().resolve())  # a study file's own paths are relative to the file
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in folder.resolve().name) or "my_images"
    output = output or Path(f"{name}.yaml")
    if output.exists():
        raise Refused(f"{output} exists already. Name another with -o.")
    text = starter_text(facts, output.stem)
    try:
        with output.open("x") as file:
            file.write(text)
    except OSError as error:
        raise Refused(f"{output}: can't be written: {error.strerror}.") from error
    classes = f", {len(facts.classes)} classes" if facts.classes else ""
    colour, side = "grey" if facts.grey else "colour", facts.suggested_size
    click.echo(f"{facts.images:,} {colour} images{classes}; the study reads them at {side}×{side} pixels.")
    click.echo(f"{output}   next: diffsearch plan {output}")


@click.command()
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="[default: stdout]")
def schema(output: Path | None) -> None:
    """The JSON Schema of study files, for editors to complete and check them."""
    import json

    from diffsearch.space.json_schema import json_schema

    text = json.dumps(json_schema(), indent=1, ensure_ascii=False)
    if output is None:
        click.echo(text)
    else:
        output.write_text(text + "\n")
        click.echo(f"{output}   first line of a study file: # yaml-language-server: $schema={output}")


@click.command()
@store_option
def doctor(store: Path | None) -> int:
    """What is at hand: versions, devices, data sets, weights, disk."""
    from diffsearch.cli.doctor import report

    fine = True
    for what, found, good in report(store or DEFAULT_STORE):
        click.echo(f"{' ' if good else '!'} {what:<20} {found}")
        fine = fine and good
    return 0 if fine else NOT_FINE


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@store_option
@tracking_option
def ui(port: int, store: Path | None, tracking_uri: str | None) -> None:
    """Show the runs in MLflow's own pages, on 127.0.0.1."""
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        database = open_store(store).root / "mlflow.db"
        if not database.exists():
            raise Refused(f"no {database} yet. `diffsearch run` a study, or `diffsearch sync` one.")
        uri = f"sqlite:///{database}"
    if uri.startswith("http"):
        raise Refused(f"MLflow's own server shows these runs: {uri}")
    check_address("127.0.0.1", port)
    click.echo(f"http://127.0.0.1:{port}   (Ctrl-C ends it)")
    sys.stdout.flush()
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    where = ["--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *where])


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what could go, and delete nothing.")
@store_option
def gc(dry_run: bool, store: Path | None) -> None:
    """Delete what no study in the store asks for.

    That is checkpoints, whole runs, and what a killed process left half-written; never what is being worked on.
    """
    from diffsearch.cli.garbage import collect, remove

    there = open_store(store)
    found = collect(there)
    for kept in found.left_alone:
        click.echo(f"left alone: {kept}")
    for each in found.rubbish:
        click.echo(f"{size(each.bytes):>10}  {each.words}")
    total = size(sum(each.bytes for each in found.rubbish))
    if not found.rubbish:
        click.echo(f"{there.root}: nothing could go.")
    elif dry_run:
        click.echo(f"{total:>10}  in all could go; nothing was deleted (--dry-run)")
    else:
        freed, refused = remove(there, found)
        click.echo(
            f"{size(freed):>10}  deleted"
            + (f"; {several(refused, 'thing')} came into use and stayed" if refused else "")
        )


COMMANDS = (init, schema, doctor, ui, gc)
