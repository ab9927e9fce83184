"""Failures in a row: a node that is broken, or a mistake that every run meets, must not burn the whole study."""

from __future__ import annotations

from dataclasses import replace

from diffsearch.errors import GaveUp
from diffsearch.records import BY_MACHINE, Outcome, State
from diffsearch.space.settings import Point, show
from diffsearch.study.ledger import Asked, Ledger

FAILURES = (State.FAILED, State.OUT_OF_MEMORY, State.KILLED)
SHOWN = 3  # of a row, in what is said of it
GOES_ON = """Mend what is behind it, then the same command goes on and tries these again.
(search.give_up_after says how many failures in a row end a study; off: none do.)"""


class Row:
    """The runs that ended badly since one ended well.

    A run that diverged ends a row too: it shows that its worker works, and its end tells something of its point.

    Args:
        study: its name.
        most: as many in a row end the study; None: it never gives up.
    """

    def __init__(self, study: str, most: int | None, ledger: Ledger) -> None:
        self._study, self._most, self._ledger = study, most, ledger
        self._row: list[tuple[Asked, Outcome]] = []

    def add(self, asked: Asked, outcome: Outcome) -> GaveUp | None:
        """Take the end of a run of this session; the error to raise once there are too many in a row.

        A whole row says nothing of its points: the ledger then has its runs as failed by no fault of their own, and
        the next `run` tries them again.
        """
        if outcome.state not in FAILURES:
            self._row.clear()
            return None
        self._row.append((asked, outcome))
        if self._most is None or len(self._row) != self._most:
            return None
        for failed, how in self._row:
            self._ledger.end(failed, replace(how, details={**how.details, BY_MACHINE: True}))
        return GaveUp("\n".join(self._lines()))

    def _lines(self) -> list[str]:
        count = len(self._row)
        what = "1 run ended badly" if count == 1 else f"{count} runs in a row ended badly"
        last = "The last of them" if count > SHOWN else "What failed"
        lines = [f"{self._study}: {what}, so the study stops here. {last}:"]
        for asked, outcome in self._row[-SHOWN:]:
            lines += [f"  {asked.run_key[:6]}  {outcome.state}: {outcome.reason}", f"          {_words(asked.point)}"]
        return [*lines, *_place(self._row[-1][1]), "", GOES_ON]


def try_again(ledger: Ledger, asks: str) -> None:
    """Have runs tried again that failed, as if that had said nothing of them; one that diverged would do so again."""
    for asked in list(ledger.of(asks)):
        outcome = ledger.end_of(asked)
        if outcome is not None and outcome.state in FAILURES and not outcome.by_machine:
            ledger.end(asked, replace(outcome, details={**outcome.details, BY_MACHINE: True}))


def _words(point: Point) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {show(value)}" for path, value in point.items()) or "the one point"


def _place(outcome: Outcome) -> list[str]:
    """The line of code that a failure came from, if it is known."""
    frames = [line.strip() for line in str(outcome.details.get("traceback", "")).splitlines() if '  File "' in line]
    return [f"          {frames[-1]}"] if frames else []
