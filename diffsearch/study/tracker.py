"""The thread of the driver that keeps MLflow in step with the store, without ever holding a study up."""

from __future__ import annotations

import threading
from collections.abc import Callable

from diffsearch.errors import StoreError
from diffsearch.study.history import StudyFolder
from diffsearch.study.ledger import Asked
from diffsearch.study.tracking import TrackingDown, View

PAUSE_S = 1.0  # between two looks at what is new: all that happened to a run in between is told in one call


class Tracker:
    """Writes a `View`. A failure is said once, through `warn`, and ends the writing; `diffsearch sync` mends it."""

    def __init__(self, folder: StudyFolder, uri: str, warn: Callable[[str], None]) -> None:
        self._folder, self._uri, self._warn = folder, uri, warn
        self._news: dict[tuple[str, str], Asked] = {}  # (stage, run key) → run that something happened to
        self._last: Callable[[View], None] = lambda view: None
        self._lock, self._closing = threading.Lock(), threading.Event()
        self.is_down = False
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self._thread.start()

    def tell(self, asked: Asked) -> None:
        """Something happened to a run: MLflow is brought up to date with it soon."""
        with self._lock:
            self._news[asked.stage, asked.run_key] = asked

    def close(self, patience_s: float, last: Callable[[View], None] | None = None) -> bool:
        """Let the thread finish, and do `last` when all else is told; False if it did not come to that in time."""
        self._last = last or self._last
        self._closing.set()
        self._thread.join(patience_s)
        if self._thread.is_alive():
            self.is_down = True
            self._warn(f"MLflow at {self._uri} is slow to answer. `diffsearch sync` completes it from the store.")
        return not self._thread.is_alive()

    def _write(self) -> None:
        try:
            view = View(self._folder, self._uri)
            closing = False
            while not closing:
                closing = self._closing.wait(PAUSE_S)
                with self._lock:
                    news, self._news = self._news, {}
                for asked in news.values():
                    view.update(asked)
            self._last(view)
        except (TrackingDown, StoreError) as error:
            self.is_down = True
            self._warn(f"{error} The study goes on; `diffsearch sync` rebuilds MLflow from the store.")
