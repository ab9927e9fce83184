"""The report's section of pictures: what the noise does, what the winner draws, and how it came to it."""

from __future__ import annotations

import contextlib

import numpy as np
import numpy.typing as npt

from diffsearch.diffusion import Schedule
from diffsearch.errors import DiffsearchError
from diffsearch.records import StudyHistory
from diffsearch.report import plates
from diffsearch.report.album import Album
from diffsearch.report.blocks import Keep, lines
from diffsearch.report.curves import loss_curves, metric_curves
from diffsearch.report.figures import Drawn
from diffsearch.report.grids import noising_strips
from diffsearch.report.ranks import winner
from diffsearch.space.settings import Choice

MOST_PROCESSES = 8


def in_pictures(history: StudyHistory, real: npt.NDArray[np.uint8] | None, album: Album, keep: Keep) -> str:
    """Every picture that applies, each with its caption; empty where none does."""
    noising = keep(_noising(history, real))
    drawn = [keep(figure) for figure in plates.figures(album)]
    source = f"Drawn from {album.of}." if drawn else ""
    curves = [keep(loss_curves(history)), keep(metric_curves(history))]
    body = lines(noising, source, *drawn, *album.lacking, *curves)
    return lines("## In pictures", body) if body else ""


def _noising(history: StudyHistory, real: npt.NDArray[np.uint8] | None) -> Drawn | None:
    """A strip for each noise process of the study, the winner's first, at the winner's T."""
    if real is None or not history.runs:
        return None
    found = winner(history)
    runs = [found.run, *history.runs] if found else list(history.runs)
    steps = found.run.settings.steps if found else max(run.settings.steps for run in runs)
    processes: dict[Choice, None] = {}
    for run in runs:
        with contextlib.suppress(DiffsearchError):  # one that has no such number of steps
            Schedule.build(run.settings.noise_process, steps)
            processes[run.settings.noise_process] = None
    return noising_strips(list(processes)[:MOST_PROCESSES], steps, real)
