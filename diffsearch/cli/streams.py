"""The process' stdout and stderr, kept for what diffsearch prints.

Ray, its daemons and its workers write to file descriptors 1 and 2 whatever Python's logging says; one line of theirs
tears a table that redraws in place, and makes a JSON stream unreadable. While a study runs these go into a file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TextIO


class Terminal:
    """`out` and `err` as they were when this was made, whatever happens to the descriptors afterwards.

    Where `sys.stdout` isn't the process' own (in a notebook, in a test) it is taken as it is.
    """

    def __init__(self) -> None:
        self._copies: list[TextIO] = []
        self.out, self.err = self._keep(sys.stdout, 1), self._keep(sys.stderr, 2)

    def _keep(self, stream: TextIO, descriptor: int) -> TextIO:
        stream.flush()
        if not _is_on(stream, descriptor):
            return stream
        copy = os.fdopen(os.dup(descriptor), "w", encoding=stream.encoding, errors="replace", newline="")
        self._copies.append(copy)
        return copy

    @contextlib.contextmanager
    def diverted(self, path: Path) -> Iterator[None]:
        """What is written to descriptors 1 and 2, by this process and its children, is appended to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _flush()
        before = os.dup(1), os.dup(2)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)
        try:
            yield
        finally:
            _flush()
            for descriptor, copy in zip((1, 2), before, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for copy in self._copies:
            with contextlib.suppress(OSError):  # a reader that went away took what was left with it
                copy.close()


def _is_on(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError, AttributeError):
        return False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
