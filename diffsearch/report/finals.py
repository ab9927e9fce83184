"""The report's section on the finalists: their intervals, winner, ties and losers, and other ways to sample them."""

from __future__ import annotations

from diffsearch.records import StudyHistory
from diffsearch.report import claims, tables
from diffsearch.report.axes import axis_names, show_value
from diffsearch.report.blocks import Keep, lines, table
from diffsearch.report.figures import finalists_strip
from diffsearch.report.phrases import bounds_text, bracket, change, estimate, maybe, number, two_digits
from diffsearch.report.ranks import configurations
from diffsearch.space.metric_names import scale_of

BIAS = "A score's bias is about what it is too high by for want of images, estimated from halves of them."


def finalists(history: StudyHistory, keep: Keep) -> str:
    """Mean and interval, n, winner, ties and losers, every seed."""
    found = configurations(history)
    if not found:
        text = "Nothing was repeated over seeds, so no score here has an interval."
        return lines("## The finalists", text)
    names = axis_names(history)
    shown = {
        path: name for path, name in names.items() if len({show_value(c.runs[0].point.get(path)) for c in found}) > 1
    }
    biases = [claims.mean_bias(c.sheets, history.objective) for c in found]
    bias = ["bias"] if any(each is not None for each in biases) else []
    head = ["", *shown.values(), "epoch", "sampling", f"{history.objective} [95 %]", *bias, "n", "", "p", "each seed"]
    rows = [
        [
            str(place),
            *(show_value(c.runs[0].point.get(path)) if path in c.runs[0].point else "–" for path in shown),
            str(c.epoch),
            str(c.sampling),
            estimate(c.summary),
            *([two_digits(own)] if bias else []),
            str(c.summary.n) if c.summary.n == c.asked else f"{c.summary.n} of {c.asked}",
            "–" if c.standing == "alone" else c.standing,
            "–" if c.p is None else f"{c.p:.2g}",
            "  ".join(number(score) for score in sorted(c.scores)),
        ]
        for place, (c, own) in enumerate(zip(found, biases, strict=True), 1)
    ]
    right = [0, len(shown) + 1, *(place for place in range(len(shown) + 3, len(head) - 1) if head[place])]
    samples = found[0].sheets[0].samples
    return lines(
        "## The finalists",
        keep(finalists_strip(history)),
        table(head, rows, right=right),
        f"{bounds_text(history, history.objective, samples)}.{f' {BIAS}' if bias else ''}",
        " ".join(claims.finals_sentences(history)),
        _sampling_sweep(history),
    )


def _sampling_sweep(history: StudyHistory) -> str:
    """The same checkpoints sampled in each of the ways that the finalists were asked for; empty where it was one."""
    found = tables.finalist_sampling(history)
    if found["sampling"].nunique() < 2:
        return ""
    factor = scale_of(history.objective) == "log"
    rows = []
    for _, row in found.iterrows():
        against = [maybe(row[f"against{end}"]) for end in ("", "_low", "_high")]
        rows.append(
            [
                str(row["place"]),
                row["sampling"],
                bracket(maybe(row["mean"]), maybe(row["low"]), maybe(row["high"])),
                str(row["n"]),
                change(*against, factor=factor),
                "–" if maybe(row["p"]) is None else f"{row['p']:.2g}",
            ]
        )
    head = ["", "sampling", f"{history.objective} [95 %]", "n", "against the place's first [95 %]", "p"]
    text = (
        "The same checkpoints, sampled in other ways (the number is the place above). Those of one place share their "
        "networks and their noise, so they are compared seed by seed; p is corrected for the place's comparisons."
    )
    narrower = found["narrower"].dropna()
    if len(narrower):
        times = float(narrower.median())
        narrows = f"narrows these intervals {number(times)}" if times >= 1 else f"widens them {number(1 / times)}"
        text += f" Here that {narrows} times (the median)."
    return lines(text, table(head, rows, right=[0, 2, 3, 4, 5]))
