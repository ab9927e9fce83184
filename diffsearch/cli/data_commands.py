"""Commands about what scores and data come from: `data`, `features`."""

from __future__ import annotations

from pathlib import Path

import click

from diffsearch.cli.places import Refused
from diffsearch.cli.words import several, size


@click.group()
def data() -> None:
    """Data sets: list them, fetch one, check one."""


@data.command("list")
def data_list() -> None:
    """Every data set by name, and whether it can be used now."""
    from diffsearch.data.catalogue import available

    click.echo(
        _aligned(
            [
                (
                    each.name,
                    "yes" if each.present else "no",
                    size(each.size_bytes) if each.size_bytes else "",
                    each.where,
                )
                for each in available()
            ]
        )
    )


@data.command("fetch")
@click.argument("name")
def data_fetch(name: str) -> None:
    """Download what a data set needs, if anything, and decode it."""
    from diffsearch.cli.waiting import waiting
    from diffsearch.data.catalogue import fetch

    _known(name)
    with waiting(f"fetching {name}"):
        found = fetch(name)
    click.echo(f"{name}: {_what(found.train, found.test)}")


@data.command("check")
@click.argument("name")
@click.option("--path", help="Of the images, where NAME is `folder`.")
@click.option("--size", "side", type=click.IntRange(min=4), help="Side in pixels, where NAME is `folder`.")
def data_check(name: str, path: str | None, side: int | None) -> None:
    """Read every image again and compare it with its content hash."""
    from diffsearch.cli.waiting import waiting
    from diffsearch.data.catalogue import check
    from diffsearch.space.settings import Choice

    _known(name)
    if (name == "folder") != (path is not None):
        raise Refused("--path goes with `folder`, and `folder` with --path.")
    options = {key: value for key, value in (("path", path), ("size", side)) if value is not None}
    with waiting(f"reading {name}"):
        found = check(Choice.of(name, **options))
    test = f", test {found.test_content}" if found.test_content else ""
    click.echo(f"{name}: {_what(found.train, found.test)}, as they were decoded (content {found.content}{test})")


@click.group()
def features() -> None:
    """Feature extractors: list them, train or install weights."""


@features.command("list")
def features_list() -> None:
    """Every extractor, what it reads, and whether its weights are at hand."""
    from diffsearch.cli.doctor import extractors

    click.echo(
        _aligned([(each.name, "yes" if each.present else "no", each.reads, each.where) for each in extractors()])
    )


@features.command("train")
@click.argument("data_set", metavar="DATA")
@click.option("--set", "options", multiple=True, metavar="KEY=VALUE", help="An option of the data, e.g. path=photos.")
@click.option(
    "--use", "files", multiple=True, type=click.Path(path_type=Path), help="A Python file of yours that registers DATA."
)
@click.option("--name", help="What the extractor is to be called.  [default: DATA]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="[default: .]")
@click.option("--epochs", type=click.IntRange(min=1), help="[default: until 100,000 images were seen, at least 12]")
def features_train(
    data_set: str, options: tuple[str, ...], files: tuple[Path, ...], name: str | None, out: Path, epochs: int | None
) -> None:
    """Train a classifier on labelled images, whose features and classes scores can be made of; minutes."""
    from diffsearch import registry
    from diffsearch.data.datasets import load
    from diffsearch.scoring.classifier_training import train_classifier
    from diffsearch.space.load import load_choice

    for file in files:
        registry.use(file)
    _known(data_set)
    found = load(load_choice("dataset", data_set, options))
    name = name or data_set
    for step in train_classifier(found, out, name, epochs=epochs):
        accuracy = f"{100 * step.accuracy:.2f} % of held-out images right"
        click.echo(f"epoch {step.epoch}/{step.epochs}  loss {step.loss:.4f}  {accuracy}")
        if step.path is not None:
            click.echo(f"{step.path}   in a study: use: [{step.path}] and e.g. objective: fd-{name}")


@features.command("install")
@click.argument("weights", type=click.Path(dir_okay=False, path_type=Path))
def features_install(weights: Path) -> None:
    """Put Inception's weights, a file that you have, where `fid`, `kid` and `is` find them."""
    from diffsearch.scoring.features import install_inception

    click.echo(f"installed at {install_inception(weights)}")


def _known(name: str) -> None:
    from diffsearch import registry

    if name not in registry.dataset:
        raise Refused(f"no data set '{name}'. {registry.dataset.help(name)}")


def _what(train: object, test: object) -> str:
    from collections.abc import Sized

    assert isinstance(train, Sized)
    images = several(len(train), "image")
    return f"{images} to train on" + (f", {len(test):,} to test" if isinstance(test, Sized) else "")


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


COMMANDS = (data, features)
