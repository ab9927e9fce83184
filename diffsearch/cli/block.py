"""The picture of a running study: one block of a few lines, drawn from its progress for a given width and height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from diffsearch.cli.places import SHORT_KEY
from diffsearch.cli.words import cell, clock, point_words, short_names, widest
from diffsearch.records import State
from diffsearch.report.phrases import number
from diffsearch.space.settings import Axis
from diffsearch.study.progress import Progress, Ranked, Running

LABEL = 10  # width of the words at the left
GAP = 2
BAR = (10, 56)  # least and largest width of the bar
PHASE, SPEED = 20, 12  # `sampling 2,000/2,000`, `12,345 img/s`
WIDE = 90  # from this width on, speeds are shown
TIME = 26  # room for `1:03:41, about 2:20:00 left`
ENDS = (State.STOPPED_EARLY, State.DIVERGED, State.FAILED, State.OUT_OF_MEMORY, State.KILLED)
TROUBLE = (State.DIVERGED, State.FAILED, State.OUT_OF_MEMORY, State.KILLED)
WORD = {State.OUT_OF_MEMORY: "memory"}  # what fits into the column of labels


@dataclass(frozen=True)
class Frame:
    """What stays the same while a study runs."""

    name: str
    axes: Sequence[Axis]
    budget_s: float | None  # working time over all sessions
    width: int
    height: int

    def draw(self, progress: Progress, last: str = "") -> RenderableType:
        """The block.

        Args:
            last: a line below everything, e.g. that Ctrl-C was heard.
        """
        failed = progress.failed[-3:]
        best = 3 if self.height < 24 else 5
        room = self.height - best - len(failed) - 8
        running = list(progress.running.values())
        parts: list[RenderableType] = [*self._head(progress), Text(), self._best(progress, best), Text()]
        if running:
            parts.append(self._running(progress, running[: max(2, room)]))
            if len(running) > max(2, room):
                parts.append(Text(f" {'':<{LABEL - 1}}and {len(running) - max(2, room)} more", style="dim"))
        parts += [self._failed(progress, asked, outcome) for asked, outcome in failed]
        if last:
            parts.append(Text(last))
        return Group(*parts)

    # --- the head: bar, time, counts ---

    def _head(self, progress: Progress) -> list[RenderableType]:
        when = self._time(progress)
        width = max(BAR[0], min(BAR[1], self.width - cell_len(self.name) - TIME - 2 * GAP))
        bar = Text.assemble(_bar(progress.share, width), "  ") if progress.expected else Text()
        first = Text.assemble((self.name, "bold"), "  ", bar, when, no_wrap=True, overflow="ellipsis")
        return [first, Text.assemble((f"{' runs':<{LABEL}}", "dim"), self._counts(progress))]

    def _counts(self, progress: Progress) -> Text:
        text = Text(f"{progress.done}/{progress.expected} done" if progress.expected else f"{progress.done} done")
        text.append(f" · {len(progress.running)} running")
        for state in ENDS:
            count = progress.count(state)
            if count:
                text.append(" · ")
                text.append(f"{count} {state}", style="yellow" if state in TROUBLE else "")
        if progress.search_ended.startswith("budget."):
            text.append(f" · search ended by {progress.search_ended}", style="dim")
        return text

    def _time(self, progress: Progress) -> Text:
        elapsed_s, left_s = progress.elapsed_s, progress.left_s
        if self.budget_s is not None and left_s is not None:
            left_s = min(left_s, max(0.0, self.budget_s - progress.wall_before_s - elapsed_s))
        text = Text(clock(elapsed_s))
        if left_s is not None and left_s >= 5:
            text.append(f", about {clock(round(left_s, -1))} left", style="dim")
        return text

    # --- the best so far ---

    def _best(self, progress: Progress, count: int) -> RenderableType:
        top = progress.top(count)
        stage, objective = (top[0].asked.stage, top[0].objective) if top else ("search", progress.objective)
        label = "finals" if stage == "finalist" else "screen" if progress.screen and stage == "search" else "best"
        score_width = max(7, len(objective))
        columns = self._columns(LABEL + 4 + score_width + SHORT_KEY + 5 + 4 * GAP)
        table = Table.grid(padding=(0, GAP, 0, 0))
        table.add_column(width=LABEL - GAP, no_wrap=True)
        table.add_column(width=2, no_wrap=True)
        table.add_column(width=score_width, no_wrap=True, justify="right")
        table.add_column(width=SHORT_KEY, no_wrap=True)
        table.add_column(width=5, no_wrap=True, justify="right")
        for _, _, width in columns:
            table.add_column(width=width, no_wrap=True, overflow="ellipsis")
        head = [f" {label}", "", objective, "run", "epoch", *(word for _, word, _ in columns)]
        table.add_row(*(Text(word, style="dim") for word in head))
        for place, ranked in enumerate(top, start=1):
            style = "bold" if place == 1 else ""
            table.add_row(*(Text(word, style=style) for word in self._row(place, ranked, columns)))
        if not top:
            table.add_row("", Text("–", style="dim"), Text("no score", style="dim"))
        return table

    def _row(self, place: int, ranked: Ranked, columns: Sequence[tuple[str, str, int]]) -> list[str]:
        evaluation, point = ranked.evaluation, ranked.asked.point
        score = number(evaluation.scores[ranked.objective].value)
        values = [cell(point[path]) if path in point else "–" for path, _, _ in columns]
        return ["", str(place), score, ranked.asked.run_key[:SHORT_KEY], str(evaluation.epoch), *values]

    def _columns(self, taken: int) -> list[tuple[str, str, int]]:
        """(path, word, width) of the axes that fit beside the first columns, in file order, from the left."""
        names = short_names([axis.path for axis in self.axes])
        columns: list[tuple[str, str, int]] = []
        for axis in self.axes:
            width = min(24, max(len(names[axis.path]), widest(axis)))
            if taken + width + GAP >= self.width:
                continue
            taken += width + GAP
            columns.append((axis.path, names[axis.path], width))
        return columns

    # --- what runs now, what went wrong ---

    def _running(self, progress: Progress, shown: Sequence[Running]) -> RenderableType:
        table = Table.grid(padding=(0, GAP, 0, 0))
        table.add_column(width=LABEL - GAP, no_wrap=True)
        table.add_column(width=SHORT_KEY, no_wrap=True)
        speed = SPEED if self.width >= WIDE else 0
        taken = LABEL + SHORT_KEY + PHASE + 2 * GAP + (speed + GAP if speed else 0)
        table.add_column(width=self.width - taken - 1, no_wrap=True)
        table.add_column(width=PHASE, no_wrap=True)
        if speed:
            table.add_column(width=speed, no_wrap=True, justify="right")
        for index, each in enumerate(shown):
            asked = each.task.asked
            rate = f"{each.images_per_s:,.0f} img/s" if each.images_per_s else ""
            cells = [
                Text(" running" if index == 0 else "", style="dim"),
                Text(asked.run_key[:SHORT_KEY]),
                Text(point_words(asked.point, progress.axes), overflow="ellipsis"),
                Text(each.phase),
                Text(rate, style="dim"),
            ]
            table.add_row(*(cells if speed else cells[:-1]))
        return table

    def _failed(self, progress: Progress, asked: object, outcome: object) -> Text:
        from diffsearch.records import Outcome
        from diffsearch.study.ledger import Asked

        assert isinstance(asked, Asked) and isinstance(outcome, Outcome)
        label = f" {WORD.get(outcome.state, str(outcome.state))}"
        text = Text(f"{label:<{LABEL}}", style="yellow", no_wrap=True, overflow="ellipsis")
        text.append(f"{asked.run_key[:SHORT_KEY]}  {outcome.reason}", style="default")
        text.append(f"  ({point_words(asked.point, progress.axes)})", style="dim")
        text.truncate(self.width - 1, overflow="ellipsis")
        return text


def _bar(share: float, width: int) -> Text:
    """`━━━━╸━━━`: to half a character."""
    full, half = divmod(int(share * width * 2 + 1e-9), 2)
    done = "━" * full + "╸" * half
    return Text.assemble((done, "cyan"), ("━" * (width - len(done)), "bright_black"))
