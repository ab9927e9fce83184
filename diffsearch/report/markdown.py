"""Writes a report: report.md, its figures and its table, from histories and pictures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from diffsearch.files import replace_file
from diffsearch.records import StudyHistory
from diffsearch.report import (
    comparison,
    finals,
    in_pictures,
    mattered,
    next_study,
    sampling,
    sections,
    tables,
    trade_off,
)
from diffsearch.report.album import Album
from diffsearch.report.blocks import lines, picture
from diffsearch.report.figures import Drawn
from diffsearch.report.grids import samples_beside_real
from diffsearch.report.importance import importances
from diffsearch.report.published import published_and_measured
from diffsearch.report.ranks import searched
from diffsearch.space.published import Published
from diffsearch.space.settings import StudySpec

CSV = "table.csv"


@dataclass(frozen=True)
class Pictures:
    """What a report shows and can't make itself."""

    samples: Mapping[str, Path] = field(default_factory=dict)  # evaluation key → PNG of 8 rows of 16 samples
    real: npt.NDArray[np.uint8] | None = None  # (N, C, H, W) real images, at least 128
    yaml_of: Mapping[str, str] = field(default_factory=dict)  # run key → its settings as YAML to copy
    real_of: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)  # study name → its own, before `real`
    album: Album = field(default_factory=Album)  # of the one study's winner


def write(
    histories: Sequence[StudyHistory],
    folder: Path,
    *,
    pictures: Pictures,
    published: Published | None = None,
    spec: StudySpec | None = None,
) -> Path:
    """Write the report of one study, or the comparison of several, and return the path of its report.md.

    The report of one study sets `published` numbers beside its own, and what to try next follows from its `spec`, which
    is read from the history's text by default. Each file is replaced as a whole, report.md last,
    so a reader never finds a figure missing. The same histories and pictures give the same bytes.

    Raises:
        ValueError: no history.
        DataError: a picture of samples can't be read.
        OSError: the folder can't be written.
    """
    if not histories:
        raise ValueError("a report needs at least one study")
    alone = len(histories) == 1
    shelf = _Shelf(folder)
    if alone:
        text = lines(f"# {histories[0].name}", _study(histories[0], pictures, published, spec, shelf))
    else:
        parts = [comparison.opening(histories)]
        for history in histories:
            parts.append(_short_study(history, pictures, _Shelf(folder, _file_name(history.name) + "-")))
        text = lines(*parts)
    table = pd.concat([_with_study(history, tables.evaluations(history), alone) for history in histories])
    replace_file(folder / CSV, table.to_csv(index=False, lineterminator="\n").encode())
    path = folder / "report.md"
    replace_file(path, (text + "\n").encode())
    return path


class _Shelf:
    """Where figures are put; each name once."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder, self.prefix = folder, prefix

    def keep(self, drawn: Drawn | None) -> str:
        """Store a figure and return the Markdown that shows it."""
        if drawn is None:
            return ""
        name = f"figures/{self.prefix}{drawn.name}.png"
        replace_file(self.folder / name, drawn.png)
        return lines(picture(name, drawn.alt), drawn.caption)


def _study(
    history: StudyHistory, pictures: Pictures, published: Published | None, spec: StudySpec | None, shelf: _Shelf
) -> str:
    """All sections."""
    found, learned = tables.winner(history), searched(history)
    yaml = pictures.yaml_of.get(found.run.key) if found else None
    beginning = lines(
        sections.opening(history),
        sections.winner(history, yaml, _samples(history, pictures), shelf.keep),
        in_pictures.in_pictures(history, _real(history, pictures), pictures.album, shelf.keep),
        trade_off.trade_off(history, shelf.keep),
    )
    importance = importances(learned)
    return lines(
        beginning,
        mattered.what_mattered(learned, importance, shelf.keep),
        sampling.without_training(history),
        published_and_measured(history, published, shelf.keep) if published else "",
        sections.how_it_went(learned, shelf.keep),
        "" if history.objectives else finals.finalists(history, shelf.keep),
        next_study.what_to_try_next(history, spec, importance),
        sections.all_evaluations(history, CSV),
        sections.what_it_cost(history),
        sections.what_went_wrong(history),
        sections.to_repeat(history),
    )


def _short_study(history: StudyHistory, pictures: Pictures, shelf: _Shelf) -> str:
    """One study within a comparison: no axis tables, no list of evaluations."""
    found = tables.winner(history)
    yaml = pictures.yaml_of.get(found.run.key) if found else None
    body = lines(
        sections.opening(history),
        sections.winner(history, yaml, _samples(history, pictures), shelf.keep),
        trade_off.trade_off(history, shelf.keep),
        sections.how_it_went(searched(history), shelf.keep),
        "" if history.objectives else finals.finalists(history, shelf.keep),
        sections.what_it_cost(history),
        sections.what_went_wrong(history),
        sections.to_repeat(history),
    )
    return lines(f"# {history.name}", body)


def _samples(history: StudyHistory, pictures: Pictures) -> Drawn | None:
    """The winner's samples, of its other seeds where the typical one's weren't kept, beside real images."""
    found = tables.winner(history)
    if found is None:
        return None
    sheets = [found.sheet, *(found.configuration.sheets if found.configuration else ())]
    kept = next((pictures.samples[sheet.key] for sheet in sheets if sheet.key in pictures.samples), None)
    if kept is None:
        return None
    return samples_beside_real(kept, _real(history, pictures), "the winner's samples")


def _real(history: StudyHistory, pictures: Pictures) -> npt.NDArray[np.uint8] | None:
    return pictures.real_of.get(history.name, pictures.real)


def _with_study(history: StudyHistory, table: pd.DataFrame, alone: bool) -> pd.DataFrame:
    if not alone:
        table.insert(0, "study", history.name)
    return table


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
