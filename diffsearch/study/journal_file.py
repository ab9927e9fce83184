"""The file of the search's history, as Optuna's JournalStorage reads and writes it, by one process alone.

Opened under the study's lease and mended first: a torn last line plus one append would make it unreadable for good, and
a left-over lock costs half a minute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation

from diffsearch.errors import StoreError
from diffsearch.files import mend_tail


class InMemory:
    """Where a history that stays in memory is written to."""

    def flush(self) -> None: ...


class JournalFile(JournalFileBackend):
    """Optuna's own file, written by one process alone: without its lock, and each decision in one write and one flush.

    A kill then leaves no trial that was asked for but has no parameters yet.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path, self._written = path, len(path.read_bytes().splitlines())
        self._pending: list[dict[str, Any]] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._pending += logs

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        if log_number_from < self._written:
            yield from super().read_logs(log_number_from)
        yield from self._pending[max(0, log_number_from - self._written) :]

    def flush(self) -> None:
        """Write what a decision appended, so that it lasts through a power cut."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in self._pending)
        try:
            with self._path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"can't append to {self._path}: {error.strerror or error}") from error
        self._written, self._pending = self._written + len(self._pending), []

    def forget_last_trial(self) -> None:
        """Cut the file off before the line that made its last trial."""
        lines = self._path.read_bytes().splitlines(keepends=True)
        last = max(
            number for number, line in enumerate(lines) if json.loads(line)["op_code"] == JournalOperation.CREATE_TRIAL
        )
        os.truncate(self._path, sum(len(line) for line in lines[:last]))


def mend(path: Path) -> None:
    """Drop a torn last line and locks left behind by a killed driver. Only to be called under the study's lease."""
    for lock in path.parent.glob(f"{path.name}*.lock*"):
        lock.unlink(missing_ok=True)
    if path.exists():
        descriptor = os.open(path, os.O_RDWR)
        try:
            mend_tail(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
