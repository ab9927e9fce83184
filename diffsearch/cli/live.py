"""The live display: a block that redraws in place at the foot of the terminal, and goes when the study ends."""

from __future__ import annotations

import os
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from diffsearch.cli.streams import Terminal
from diffsearch.cli.watch import TWICE, Watcher

if TYPE_CHECKING:
    from diffsearch.cli.block import Frame
    from diffsearch.records import Outcome
    from diffsearch.study.conductor import Task
    from diffsearch.study.progress import Progress
    from diffsearch.trial import Item

PER_S = 5  # redraws


class Display(Watcher):
    """Draws on the main thread, when told something; a thread of rich's puts the last drawing on the terminal."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self._console = Console(file=terminal.out, highlight=False)
        self._shown: RenderableType = Text()
        self._drawn_at = 0.0
        self._notes: list[str] = []
        self._last = ""
        self._echo: Callable[[], None] = lambda: None
        self._live = Live(
            get_renderable=lambda: self._shown,
            console=self._console,
            refresh_per_second=PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Display:
        self._fit()
        self._echo = _without_echo_of_control_keys()
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._echo()

    def phase(self, text: str) -> None:
        self._last = ""
        self._shown = Spinner("dots", Text.assemble((self.name, "bold"), "  " if self.name else "", (text, "dim")))

    def began(self, progress: Progress, workers: int) -> None:
        super().began(progress, workers)
        self._draw()

    def heard(self, task: Task, said: Item | Outcome | None) -> None:
        self.beat()

    def beat(self) -> None:
        if time.monotonic() - self._drawn_at >= 1 / PER_S:
            self._draw()

    def note(self, text: str) -> None:
        self._notes.append(text)

    def interrupted(self, times: int, running: int) -> None:
        super().interrupted(times, running)
        self._last = f"{self.heard_interrupt} {TWICE}" if times == 1 else "^C ^C  stopping …"
        self._draw()

    def end(self, lines: Sequence[str], facts: Mapping[str, Any]) -> None:
        self._live.stop()
        for note in self._notes:
            self.say(note, error=True)
        for line in lines:
            self._console.print(line, markup=False, emoji=False)

    def _draw(self) -> None:
        if self.progress is None:
            return
        self._drawn_at = time.monotonic()
        self._fit()
        parts = [self._frame().draw(self.progress, self._last)]
        for note in self._notes[-1:]:
            parts.append(Text(f" note      {note}", style="dim", no_wrap=True, overflow="ellipsis"))
        self._shown = Group(*parts)

    def _frame(self) -> Frame:
        from diffsearch.cli.block import Frame

        width, height = self._console.size
        return Frame(self.name, self.axes, self.budget_s, width, height)

    def _fit(self) -> None:
        """Rich asks descriptors 0 to 2 for the size, and those lead into a file while a study runs."""
        try:
            size = os.get_terminal_size(self.terminal.out.fileno())
        except (OSError, ValueError):
            return
        if size.columns and size.lines:
            self._console.size = ConsoleDimensions(*size)


def can_redraw(terminal: Terminal) -> bool:
    """Whether stdout is a terminal whose cursor can be moved."""
    return terminal.out.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


def _without_echo_of_control_keys() -> Callable[[], None]:
    """Keep the terminal from writing `^C` into the block, and return what undoes it.

    Only in the foreground: a process in the background is stopped when it touches the terminal's settings.
    """
    try:
        terminal = sys.stdin.fileno()
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return lambda: None
        before = termios.tcgetattr(terminal)
    except (OSError, ValueError, termios.error):
        return lambda: None
    changed = [*before]
    changed[3] &= ~termios.ECHOCTL
    termios.tcsetattr(terminal, termios.TCSADRAIN, changed)
    return lambda: termios.tcsetattr(terminal, termios.TCSADRAIN, before)
