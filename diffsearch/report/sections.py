"""The sections of a study's report, each as Markdown text; the second, the axes, is in `mattered`."""

from __future__ import annotations

from collections.abc import Sequence

from diffsearch.records import RunHistory, State, StudyHistory
from diffsearch.report import phrases, tables
from diffsearch.report.axes import axis_names, show_value
from diffsearch.report.blocks import Keep, code, fold, lines, table
from diffsearch.report.curves import learning_curves
from diffsearch.report.figures import Drawn, best_so_far, finalists_strip
from diffsearch.report.ledger import ALONE, NEW, TOTAL, entry
from diffsearch.report.phrases import duration, estimate, maybe, number, plus_minus
from diffsearch.report.ranks import STAGES, configurations, rankable
from diffsearch.scoring.statistics import Summary, welch_p


def opening(history: StudyHistory) -> str:
    """What was asked, what won and how surely, what it cost."""
    return lines(
        phrases.unfinished_sentence(history),
        phrases.asked_sentence(history),
        phrases.won_sentence(history),
        " ".join(filter(None, (phrases.cost_sentence(history), phrases.ending_sentence(history)))),
    )


def winner(history: StudyHistory, yaml: str | None, samples: Drawn | None, keep: Keep) -> str:
    """The settings to copy and the samples, or that there are none."""
    found = tables.winner(history)
    if found is None:
        return ""
    text = phrases.winner_note(found)
    settings = code(yaml, "yaml") if yaml else "Its settings were not given to this report."
    pictures = keep(samples) or "No samples were kept."
    return lines("## The winner", text, pictures, settings)


def how_it_went(history: StudyHistory, keep: Keep) -> str:
    pictures = [keep(best_so_far(history)), keep(learning_curves(history))]
    if not any(pictures):
        return lines("## How it went", "No run has a score yet.")
    return lines("## How it went", *pictures)


def finalists(history: StudyHistory, keep: Keep) -> str:
    """Mean ± standard error, n, tie groups, every seed."""
    found = configurations(history)
    if not found:
        text = "Nothing was repeated over seeds, so no score here has an interval."
        return lines("## The finalists", text)
    names = axis_names(history)
    shown = {
        path: name for path, name in names.items() if len({show_value(c.runs[0].point.get(path)) for c in found}) > 1
    }
    head = ["", *shown.values(), "epoch", "sampling", history.objective, "n", "group", "p", "each seed"]
    rows = []
    for place, c in enumerate(found, 1):
        p = welch_p(found[0].scores, c.scores) if place > 1 else None
        count = str(c.summary.n) if c.summary.n == c.asked else f"{c.summary.n} of {c.asked}"
        values = [show_value(c.runs[0].point.get(path)) if path in c.runs[0].point else "–" for path in shown]
        seeds = "  ".join(number(score) for score in sorted(c.scores))
        p_text = "–" if p is None else f"{p:.2g}"
        rows.append(
            [
                str(place),
                *values,
                str(c.epoch),
                str(c.sampling),
                estimate(c.summary),
                count,
                str(c.group),
                p_text,
                seeds,
            ]
        )
    right = [0, len(shown) + 1, *range(len(head) - 5, len(head) - 1)]
    samples = found[0].sheets[0].samples
    notes = [*phrases.finals_sentences(history)]
    if len(found) > 1:
        notes.append("p is Welch's t test against the first, not corrected for the number of comparisons.")
    return lines(
        "## The finalists",
        keep(finalists_strip(history)),
        table(head, rows, right=right),
        f"{phrases.bounds_text(history, history.objective, samples)}.",
        " ".join(notes),
        _sampling_sweep(history),
    )


def _sampling_sweep(history: StudyHistory) -> str:
    """The same checkpoints sampled in each of the ways that the finalists were asked for; empty where it was one."""
    found = tables.finalist_sampling(history)
    points = list(dict.fromkeys(found["sampling"]))
    if len(points) < 2:
        return ""
    places = sorted(set(found["place"]))
    texts = {
        (row["place"], row["sampling"]): estimate(Summary(row["mean"], maybe(row["se"]), int(row["n"])))
        for _, row in found.iterrows()
    }
    rows = [[point, *(texts.get((place, point), "–") for place in places)] for point in points]
    text = "The same checkpoints, sampled in other ways (columns: the places above):"
    return lines(text, table(["sampling", *map(str, places)], rows, right=range(1, len(places) + 1)))


def all_evaluations(history: StudyHistory, csv: str) -> str:
    """Every evaluation, best first, those of other sample counts and of failed runs below."""
    every = tables.evaluations(history)
    if every.empty:
        return lines("## All evaluations", "None.")
    ranked = {sheet.key for stage in STAGES for _, sheets in rankable(history, stage) for sheet in sheets}
    every = every.assign(ranked=every["key"].isin(ranked))
    every = every.sort_values(
        ["samples", "ranked", history.objective], ascending=[False, False, history.direction == "min"], kind="stable"
    )
    head = ["run", "state", "epoch", "sampling", *history.metrics, "samples", "train s", "sample s", "score s"]
    rows = [
        [
            row["run"],
            row["state"] + ("" if row["ranked"] else " (not ranked)"),
            str(row["epoch"]),
            row["sampling"],
            *(plus_minus(maybe(row[m]), maybe(row.get(tables.spread_column(m)))) for m in history.metrics),
            f"{row['samples']:,}",
            *(number(row[phase]) for phase in ("train_s", "sampling_s", "scoring_s")),
        ]
        for _, row in every.iterrows()
    ]
    counts = sorted({int(samples) for samples in every["samples"]}, reverse=True)
    ends = [f"{phrases.bounds_text(history, metric, count)}." for count in counts for metric in history.metrics]
    body = lines(table(head, rows, right=[2, *range(4, len(head))]), "\n".join(f"- {end}" for end in ends))
    text = (
        f"{phrases.several(len(every), 'evaluation')}, largest sample count first; different counts are not comparable."
    )
    text += f" As [CSV]({csv})."
    if any(tables.spread_column(metric) in every for metric in history.metrics):
        text += " Here ± is the standard deviation over subsets of one evaluation's images, not over seeds."
    return lines("## All evaluations", text, fold("Every evaluation", body))


def what_it_cost(history: StudyHistory) -> str:
    """The ledger."""
    found = tables.ledger(history)
    rows = []
    for line, row in found.iterrows():
        total = str(line) in (ALONE, TOTAL, NEW)
        if not total and (row.abs() < 1e-6).all():  # what floating point leaves of equal sums
            continue
        mark = "" if str(line) == ALONE else "= " if total else "− "
        name = f"{mark}{line}"
        seconds = [duration(abs(row[phase])) for phase in ("training_s", "sampling_s", "scoring_s")]
        rows.append(
            [
                name,
                f"{abs(row['epochs']):,.0f}",
                f"{abs(row['images_trained']):,.0f}",
                f"{abs(row['network_calls']):,.0f}",
                *seconds,
            ]
        )
    head = ["", "epochs", "images trained", "network calls", "training", "sampling", "scoring"]
    busy = sum(entry(found, NEW, phase) for phase in ("training_s", "sampling_s", "scoring_s"))
    text = f"{duration(busy)} of work in {duration(history.wall_s)} on {phrases.several(history.workers, 'worker')}."
    alone = entry(found, ALONE, "epochs")
    if alone:
        text += f" {100 * entry(found, NEW, 'epochs') / alone:.0f} % of the naive epochs were trained."
    note = (
        "Calls and times of the first line, and what is subtracted from it, are estimates from the runs' own averages."
    )
    return lines("## What it cost", table(head, rows, right=range(1, len(head))), text + " " + note)


def what_went_wrong(history: StudyHistory) -> str:
    """Every failed or diverged run and attempt, with its cause and its settings."""
    rows = []
    for run in history.runs:
        for place, outcome in enumerate((*run.attempts, run.outcome), 1):
            if outcome.ok or outcome.state is State.RUNNING:
                continue
            what = str(outcome.state) + (f" (attempt {place})" if place <= len(run.attempts) else "")
            after = "" if place > len(run.attempts) else f"; then {run.outcome.state}"
            rows.append(
                [
                    run.key[:6],
                    run.stage,
                    what + after,
                    outcome.reason or "no reason was recorded",
                    _settings(history, run),
                ]
            )
    if not rows:
        return lines("## What went wrong", "Nothing failed.")
    text = "None of these carries a score that ranks."
    return lines("## What went wrong", text, table(["run", "stage", "what", "cause", "settings"], rows))


def _settings(history: StudyHistory, run: RunHistory) -> str:
    return f"{phrases.settings_text(history, run)}, seed {run.settings.seed}"


def to_repeat(history: StudyHistory) -> str:
    """The command, the study file in full, and what it ran on."""
    seeds: dict[str, list[str]] = {}
    for run in history.runs:
        texts = seeds.setdefault(run.stage, [])
        if str(run.settings.seed) not in texts:
            texts.append(str(run.settings.seed))
    facts: Sequence[tuple[str, str]] = [
        *((f"{stage} seeds", ", ".join(values)) for stage, values in seeds.items()),
        *([("search ended by", history.search_ended)] if history.search_ended else []),
        *sorted(history.facts.items()),
        ("read from", history.read_from),
    ]
    environments = sorted(
        {", ".join(f"{k} {v}" for k, v in sorted(run.environment.items())) for run in history.runs} - {""}
    )
    facts = [
        *facts,
        *(
            (f"environment {i}" if len(environments) > 1 else "environment", text)
            for i, text in enumerate(environments, 1)
        ),
    ]
    return lines(
        "## To repeat this",
        code(history.command, "sh"),
        code(history.text, "yaml"),
        table(["", ""], [list(fact) for fact in facts]),
    )
