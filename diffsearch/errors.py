"""The one exception tree: everything that diffsearch raises on purpose is a `DiffsearchError`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class DiffsearchError(Exception):
    """Base of all errors that a user can act on. The command line prints them without a traceback."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a study file: where it is, what was read, what is allowed and what to do."""

    line: int
    column: int
    path: str  # dotted, e.g. "diffusion.noise_process"
    message: str  # e.g. "unknown value 'cosin'"
    help: str = ""  # e.g. "known: cosine, linear-x.   Did you mean 'cosine'?"


class ConfigError(DiffsearchError):
    """A study file or an override that can't be used; holds every problem found, sorted by line.

    Args:
        problems: at least one.
        source: file name to print before each line number.
    """

    def __init__(self, problems: Sequence[Problem], source: str = "study") -> None:
        self.problems = tuple(sorted(problems))
        self.source = source
        super().__init__(self.render())

    def render(self) -> str:
        blocks = []
        for problem in self.problems:
            place = f"{self.source}:{problem.line}:{problem.column}: " if problem.line else f"{self.source}: "
            head = f"{problem.path}: {problem.message}" if problem.path else problem.message
            blocks.append(place + head + (f"\n    {problem.help}" if problem.help else ""))
        count = len(self.problems)
        return "\n".join(blocks) + f"\n{count} error{'s' if count > 1 else ''}; nothing was run."


class DataError(DiffsearchError):
    """A data set that is absent, unreadable or not what was asked for; the message names the file and the remedy."""


class MetricError(DiffsearchError):
    """A score that can't be computed: missing weights, too few samples, an extractor that doesn't fit the images."""


class StoreError(DiffsearchError):
    """The store can't be read or written, or somebody else holds it."""


class GaveUp(DiffsearchError):
    """So many runs in a row failed that the study stopped by itself; the message says what failed and what to do."""


class Diverged(DiffsearchError):
    """Loss or weights became NaN or infinite. Carries no score, so nothing can rank it."""

    def __init__(self, epoch: int, step: int, reason: str) -> None:
        self.epoch, self.step, self.reason = epoch, step, reason
        super().__init__(f"{reason} at epoch {epoch}, step {step}")
