"""The section that sets a report's printed numbers beside the study's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diffsearch.records import StudyHistory
from diffsearch.report import style
from diffsearch.report.axes import axis_names, show_value
from diffsearch.report.beside import Comparison, Line, Order, compare, repeated, stranger, value_of
from diffsearch.report.blocks import Keep, fold, lines, table
from diffsearch.report.figures import Drawn
from diffsearch.report.phrases import bounds_of, compact, estimate, listing, number, several
from diffsearch.report.ranks import winner
from diffsearch.scoring.statistics import Summary, summarise
from diffsearch.space.metric_names import scale_of
from diffsearch.space.published import EPOCHS, Printed, Published, Row
from diffsearch.space.settings import canonical

_RARE = 0.05
_SAYS = {
    "held": "our repeats tell them apart, the same way round",
    "inside the noise": "our repeats don't tell them apart, so this order lies inside the noise",
    "reversed": "our repeats tell them apart, the other way round",
    "": "not repeated here, so nothing is said of noise",
}


def published_and_measured(history: StudyHistory, published: Published, keep: Keep) -> str:
    """Each table of the report with this study's scores, what differs between the two, and what else was printed."""
    why = [(each, stranger(history, published, each)) for each in published.tables]
    found = [compare(history, published, each) for each, reason in why if not reason]
    left_out = [f"{each.name} ({reason})" for each, reason in why if reason]
    differ = [_differences(history, published, each) for each in found]
    throughout = [text for text in differ[0] if all(text in texts for texts in differ)] if len(differ) > 1 else []
    tables = [
        lines(
            f"### {each.table.name} ({each.table.where})",
            _there_and_here([text for text in texts if text not in throughout]),
            _table(history, each, f"published-{place}", keep),
        )
        for place, (each, texts) in enumerate(zip(found, differ, strict=True), 1)
    ]
    return lines(
        "## Published and measured",
        _opening(history, published),
        _chance(published),
        "" if published.tables else _settings(history, published),
        _there_and_here(throughout, "In all tables, there"),
        *tables,
        f"Printed, but not about what this study runs: {listing(left_out)}." if left_out else "",
        _else(published),
    )


def _opening(history: StudyHistory, published: Published) -> str:
    by = f" by {listing(published.authors)}" if published.authors else ""
    year = f", {published.year}" if published.year else ""
    text = f"Beside these runs stands what was printed in *{published.title}*{by}{year}."
    if not published.tables:
        return f"{text} It prints no score, so there is nothing to set beside ours."
    never = f" Never printed: {'; '.join(published.not_printed)}." if published.not_printed else ""
    return (
        f"{text} Ranks are among the values that have both scores, 1 the best; τ is Kendall's, 1 where the two orders "
        "agree and -1 where they are opposite, p that of orders that have nothing to do with each other. Two values "
        "are told apart by Welch's t test over our seeds at 5 %, corrected by Holm's method for the comparisons of a "
        f"table; [brackets] hold ours with 95 % confidence, ± is as printed.{never}"
    )


def _settings(history: StudyHistory, published: Published) -> str:
    """Printed settings beside the winner's, where there is no table to compare."""
    found = winner(history)
    if found is None or not published.settings:
        return ""
    ours = {path: value_of((found.run, found.sheet), path) for path in published.settings}
    names = axis_names(history)
    rows = [
        [names.get(path, path), show_value(theirs), "–" if ours[path] is None else show_value(ours[path])]
        for path, theirs in published.settings.items()
    ]
    return table(["", "printed", "this study's winner"], rows)


def _chance(published: Published) -> str:
    """What the report's own repetitions say of its noise."""
    found = [
        f"{listing([f'{score:g}' for score in scores])} (up to {max(scores) - min(scores):.3g} apart)"
        for scores in repeated(published)
    ]
    if not found:
        return ""
    return (
        f"Several of its tables hold the same settings, printed with {'; others with '.join(found)}: "
        "of its own values, those that are nearer to each other than that may differ by chance alone."
    )


# --- one table ----------------------------------------------------------------------------------------------------


def _table(history: StudyHistory, found: Comparison, name: str, keep: Keep) -> str:
    if found.table.axis is None:
        return _one_setting(history, found)
    return lines(_rows(history, found, found.table.axis), keep(_figure(history, found, name)), _verdicts(found))


def _rows(history: StudyHistory, found: Comparison, axis: str) -> str:
    judged = any(order.verdict for order in found.orders)
    head = [axis_names(history).get(axis, axis.rpartition(".")[2]), f"published {found.table.metric}"]
    head += [f"measured {found.metric} [95 %]", "n", "rank there", "rank here"] + (["over the next"] if judged else [])
    next_best = {canonical(order.better.value): order for order in found.orders}
    rows = []
    for line in found.lines:
        ranks = [str(rank) for rank in line.ranks] if line.ranks else ["–", "–"]
        taken = " (taken)" if found.taken is not None and line.row is found.taken.better else ""
        cells = [show_value(line.row.value) + taken, _printed(line.row), _measured(line), _count(line), *ranks]
        order = next_best.get(canonical(line.row.value))
        rows.append(cells + ([_against(order)] if judged else []))
    return table(head, rows, right=range(1, 6))


def _one_setting(history: StudyHistory, found: Comparison) -> str:
    """A score without an axis, between those of noise and of real images."""
    printed, [line] = found.table, found.lines
    bounds = bounds_of(history, found.metric, history.samples)
    best, label = _winner(history, found.metric)
    rows = [
        ["pure noise", _printed(printed.noise), number(bounds.ceiling) if bounds else "–", "–"],
        ["the model; here the runs nearest to its settings", _printed(line.row), _measured(line), _count(line)],
        [label, "–", estimate(best), str(best.n) if best else "–"],
        ["real images", _printed(printed.real), number(bounds.floor) if bounds else "–", "–"],
    ]
    return table(["", f"published {printed.metric}", f"measured {found.metric} [95 %]", "n"], rows, right=[1, 2, 3])


def _winner(history: StudyHistory, metric: str) -> tuple[Summary | None, str]:
    """The study's winner by that metric, and what to call it."""
    found = winner(history)
    if found is None:
        return None, "this study's winner"
    sheets = found.configuration.sheets if found.configuration else (found.sheet,)
    scores = [sheet.scores[metric].value for sheet in sheets if metric in sheet.scores]
    samples = f"this study's winner, {found.sheet.samples:,} samples"
    return (summarise(scores, scale_of(metric)) if scores else None), samples


def _printed(printed: Row | Printed | None) -> str:
    if printed is None:
        return "–"
    return f"{printed.score:g}" if printed.error is None else f"{printed.score} ± {printed.error}"


def _measured(line: Line) -> str:
    return estimate(line.measured) if line.measured else line.state


def _count(line: Line) -> str:
    if line.measured is None:
        return "–"
    return str(line.measured.n) if line.measured.n == line.asked else f"{line.measured.n} of {line.asked}"


def _against(order: Order | None) -> str:
    if order is None:
        return ""
    said = order.verdict or ("printed alike" if order.better.score == order.worse.score else "–")
    return f"{show_value(order.worse.value)}: {said}"


# --- in words -----------------------------------------------------------------------------------------------------


def _differences(history: StudyHistory, published: Published, found: Comparison) -> list[str]:
    """What is not the same there and here, `there → here` each: score, data, budget, and each printed setting."""
    printed, settings = found.table, published.of(found.table)
    metric = "" if found.metric == printed.metric else " (of which only the order can be compared)"
    pairs = [
        (f"{printed.metric} ({printed.extractor})", f"{found.metric}{metric}"),
        (_images(printed.samples, "scored"), _images(history.samples, "scored")),
        (_images(printed.train_images, "trained on"), _images(history.train_images, "trained on")),
    ]
    if printed.axis != EPOCHS:
        pairs.append((_budget(settings.get(EPOCHS), printed.train_images), _budget(found.epoch, history.train_images)))
    names = axis_names(history)
    for path, theirs in settings.items():
        ours = found.ours[path]
        if path != EPOCHS and ours and [canonical(value) for value in ours] != [canonical(theirs)]:
            pairs.append((f"{names.get(path, path)} {show_value(theirs)}", " or ".join(map(show_value, ours))))
    return [f"{there} → {here}" for there, here in pairs if there != here]


def _there_and_here(differ: Sequence[str], head: str = "There") -> str:
    return f"{head} → here: {'; '.join(differ)}." if differ else ""


def _images(count: int | None, what: str) -> str:
    return f"images {what} not printed" if count is None else f"{count:,} images {what}"


def _budget(epochs: Any, images: int | None) -> str:
    if epochs is None:
        return "epochs not known"
    return several(epochs, "epoch") + (f" ({compact(epochs * images)} images)" if images else "")


def _verdicts(found: Comparison) -> str:
    """Kendall's τ, the authors' choice, and whether anything is said of noise."""
    said = ["Fewer than two values have both scores, or they are all alike: there is no τ."]
    if found.tau is not None:
        least = 2 / math.factorial(found.tau.n)
        few = f"; so few can't give a p below {least:.2g}" if least > _RARE else ""
        said = [f"τ = {found.tau.tau:.2f} (p = {found.tau.p:.2g}, {found.tau.n} values{few})."]
    if found.mixed:
        said.append("Other axes vary within each row here, so nothing is said of noise.")
    elif found.taken is not None:
        said.append(_choice(found.taken))
    return " ".join(said)


def _choice(taken: Order) -> str:
    chosen, other = (f"{show_value(row.value)} ({row.score:g})" for row in (taken.better, taken.worse))
    if taken.better.score == taken.worse.score:
        return f"The authors took {chosen} and printed {other} alike."
    return f"The authors took {chosen} over {other}: {_SAYS[taken.verdict]}."


def _else(published: Published) -> str:
    """Numbers, claims and figures that no table holds, folded."""
    kept = []
    if published.numbers:
        rows = [[each.what, each.printed, each.where] for each in published.numbers]
        kept.append(table(["number", "printed", "where"], rows, right=[1]))
    for what, found in (("claim", published.claims), ("figure", published.figures)):
        if found:
            kept.append(table([what, "where"], [[each.what, each.where] for each in found]))
    return fold("What else it prints", lines(*kept)) if kept else ""


# --- the figure ---------------------------------------------------------------------------------------------------


def _figure(history: StudyHistory, found: Comparison, name: str) -> Drawn | None:
    """A row a value: published left, measured right, each on its own scale; none where fewer than two were measured."""
    measured = [line.measured for line in found.lines if line.measured is not None]
    if len(measured) < 2:
        return None
    with style.house_style():
        figure = style.sheet(0.75 + 0.21 * len(found.lines))
        left, right = figure.subplots(1, 2, sharey=True)
        for place, line in enumerate(found.lines):
            left.plot(line.row.score, place, "o", color=style.MUTED, markersize=5)
            if line.measured is not None:
                right.plot(line.measured.interval or [line.measured.mean] * 2, [place] * 2, color=style.PALETTE[0],
                           linewidth=1.4)  # fmt: skip
                right.plot(line.measured.mean, place, "o", color=style.PALETTE[0], markersize=5)
        _scale(left, [line.row.score for line in found.lines], f"published {found.table.metric}")
        _scale(right, [each.mean for each in measured], f"measured {found.metric} ({history.samples:,} samples)")
        left.set_yticks(range(len(found.lines)), [show_value(line.row.value) for line in found.lines])
        left.set_ylim(len(found.lines) - 0.5, -0.5)
        left.tick_params(axis="y", length=0, labelcolor=style.INK)
        right.tick_params(axis="y", length=0)
        texts = [f"{show_value(each.row.value)}: {each.row.score:g} and {_measured(each)}" for each in found.lines]
        alt = f"{found.table.name}, published {found.table.metric} and measured {found.metric}: {'; '.join(texts)}."
        return Drawn(name, style.png(figure), alt)


def _scale(axes: Any, values: Sequence[float], label: str) -> None:
    if style.decades(values):
        style.log_axis(axes.xaxis)
    axes.set_xlabel(label)
    style.grid_lines(axes, "both")
