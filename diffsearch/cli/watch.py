"""Who watches a running study and tells of it: nobody (`--quiet`), one line an event, one JSON object an event."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffsearch.cli.places import SHORT_KEY
from diffsearch.cli.streams import Terminal
from diffsearch.cli.words import clock, point_words, several
from diffsearch.records import Outcome
from diffsearch.space.settings import Axis, to_plain

if TYPE_CHECKING:
    from diffsearch.study.conductor import Task
    from diffsearch.study.progress import Progress
    from diffsearch.trial import Item

GOES_ON = "Nothing is lost: the same command goes on from here."
TWICE = "(Twice to stop at once.)"


class Watcher:
    """Says nothing until the end: `--quiet`. What goes to stderr are notes that a person should not miss."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.progress: Progress | None = None
        self.name = ""
        self.axes: Sequence[Axis] = ()
        self.budget_s: float | None = None
        self.since = time.monotonic()
        self.heard_interrupt = "^C"

    @property
    def begun(self) -> bool:
        """Whether there was anything left to compute."""
        return self.progress is not None

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None: ...

    # --- told by the command ---

    def phase(self, text: str) -> None:
        """What is being done, outside of the study itself."""

    def end(self, lines: Sequence[str], facts: Mapping[str, Any]) -> None:
        """The last words."""
        for line in lines:
            self.say(line)

    def stopped(self, facts: Mapping[str, Any]) -> None:
        """The last words after Ctrl-C."""
        self.end([f"{self.heard_interrupt}  done. {GOES_ON}"], facts)

    # --- told by the session (diffsearch.study.observer.Observer) ---

    def began(self, progress: Progress, workers: int) -> None:
        self.progress = progress

    def heard(self, task: Task, said: Item | Outcome | None) -> None: ...

    def beat(self) -> None: ...

    def note(self, text: str) -> None:
        self.say(text, error=True)

    def interrupted(self, times: int, running: int) -> None:
        if times == 1:
            self.heard_interrupt = f"^C  finishing the writes of {several(running, 'run')} …"

    # --- for all of them ---

    def say(self, text: str, error: bool = False) -> None:
        """Print a line. A reader that went away doesn't end a study."""
        stream = self.terminal.err if error else self.terminal.out
        with contextlib.suppress(OSError):
            stream.write(text + "\n")
            stream.flush()


class Lines(Watcher):
    """One line an event: for logs, and wherever stdout is no terminal."""

    def began(self, progress: Progress, workers: int) -> None:
        super().began(progress, workers)
        runs = f"{progress.done} of {several(progress.expected, 'run')} done" if progress.expected else "begins"
        self._line(f"{self.name}: {runs}, {several(workers, 'worker')}")

    def heard(self, task: Task, said: Item | Outcome | None) -> None:
        from diffsearch.report.phrases import number
        from diffsearch.trial import Scored, Trained

        assert self.progress is not None
        match said:
            case None:
                stage = {"finalist": "finalist", "full": "in full"}.get(task.asked.stage, "run")
                self._of(task, f"{stage}: {point_words(task.asked.point, self.progress.axes)}")
            case Outcome():
                reason = f": {said.reason}" if said.reason else ""
                total = f"/{self.progress.expected}" if self.progress.expected else ""
                self._of(task, f"{said.state}{reason} ({self.progress.done}{total} runs)")
            case Trained(record):
                epochs = f"epoch {record.epoch}/{task.asked.milestones[-1]}"
                self._of(task, f"{epochs}, loss {number(record.loss)}, {record.images_per_s:,.0f} img/s")
            case Scored(evaluation, _, reused):
                scores = ", ".join(f"{name} {number(score.value)}" for name, score in evaluation.scores.items())
                stored = ", from the store" if reused else ""
                self._of(task, f"epoch {evaluation.epoch}, {evaluation.sampling}: {scores}{stored}")

    def interrupted(self, times: int, running: int) -> None:
        super().interrupted(times, running)
        self._line(f"interrupted: finishing the writes of {several(running, 'run')} {TWICE}")

    def _of(self, task: Task, text: str) -> None:
        self._line(f"{task.asked.run_key[:SHORT_KEY]}  {text}")

    def _line(self, text: str) -> None:
        elapsed_s = self.progress.elapsed_s if self.progress else time.monotonic() - self.since
        self.say(f"{clock(elapsed_s):>7}  {text}")


class Json(Watcher):
    """One JSON object a line on stdout, and nothing else there."""

    def began(self, progress: Progress, workers: int) -> None:
        super().began(progress, workers)
        self._event("began", study=self.name, workers=workers, runs_done=progress.done, runs_expected=progress.expected)

    def heard(self, task: Task, said: Item | Outcome | None) -> None:
        from diffsearch.trial import Sampled, Scored, Trained

        assert self.progress is not None
        about: dict[str, Any] = {"run": task.asked.run_key, "stage": task.asked.stage}
        match said:
            case None:
                point = {path: to_plain(value) for path, value in task.asked.point.items()}
                self._event("run", **about, seed=task.asked.settings.seed, point=point)
            case Outcome():
                left = self.progress.left_s
                counts = {"runs_done": self.progress.done, "runs_expected": self.progress.expected}
                self._event("ended", **about, state=said.state.value, reason=said.reason, **counts, left_s=left)
            case Trained(record):
                self._event("epoch", **about, **record.to_json())
            case Sampled():
                self._event("sampled", **about, epoch=said.epoch, images=said.done, of=said.total)
            case Scored(evaluation, _, reused):
                self._event("evaluation", **{**evaluation.to_json(), **about}, reused=reused)

    def note(self, text: str) -> None:
        self._event("note", text=text)

    def interrupted(self, times: int, running: int) -> None:
        self._event("interrupted", times=times, running=running)

    def end(self, lines: Sequence[str], facts: Mapping[str, Any]) -> None:
        self._event("summary", **facts)

    def _event(self, event: str, **fields: Any) -> None:
        at = round(time.monotonic() - self.since, 3)
        self.say(json.dumps({"event": event, "at_s": at, **fields}, allow_nan=False))
