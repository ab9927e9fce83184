"""The thread of the driver that keeps MLflow in step with the store, without ever holding a study up."""

from __future__ import annotations

import threading
from collections.abc import Callable

from diffsearch.errors import DiffsearchError
from diffsearch.study.history import StudyFolder
from diffsearch.study.ledger import Asked
from diffsearch.study.tracking import View

PAUSE_S = 1.0  # between two looks at what is new: all that happened to a run in between is told in one call


class Tracker:
    """Writes a `View`. A failure is said once, through `warn`, and ends the writing; `diffsearch sync` mends it."""

    def __init__(self, folder: StudyFolder, uri: str, warn: Callable[[str], None]) -> None:
        self._folder, self._uri, self._warn = folder, uri, warn
        self._news: dict[tuple[str, str], tuple[Asked, bool]] = {}  # (stage, run key) → run with news, and its end
        self._last: Callable[[View], None] = lambda view: None
        self._lock, self._closing = threading.Lock(), threading.Event()
        self.is_down = self._is_done = False
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self._thread.start()

    def tell(self, asked: Asked, ended: bool) -> None:
        """Something happened to a run, or it ended: MLflow is brought up to date with it soon."""
        with self._lock:
            self._news[asked.stage, asked.run_key] = asked, ended

    def close(self, patience_s: float, last: Callable[[View], None] | None = None) -> bool:
        """Let the thread finish, and do `last` when all else is told; False if it did not come to that in time."""
        self._last = last or self._last
        self._closing.set()
        self._thread.join(patience_s)
        if self._thread.is_alive():
            self.is_down = True
            self._warn(f"MLflow at {self._uri} is slow to answer. `diffsearch sync` completes it from the store.")
        return self._is_done

    def _write(self) -> None:
        try:
            view = View(self._folder, self._uri)
            closing = False
            while not closing:
                closing = self._closing.wait(PAUSE_S)
                with self._lock:
                    news, self._news = self._news, {}
                for asked, ended in news.values():
                    view.update(asked, ended)
            self._last(view)
            self._is_done = True
        except Exception as error:  # noqa: BLE001 - whatever it is, the study goes on, and says so
            self.is_down = True
            what = str(error) if isinstance(error, DiffsearchError) else f"MLflow is not told more: {error!r}."
            self._warn(f"{what} The study goes on; `diffsearch sync` rebuilds MLflow from the store.")
