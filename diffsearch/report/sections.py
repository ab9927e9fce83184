"""The sections of a study's report, each as Markdown text; the second, the axes, is in `mattered`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from diffsearch.records import RunHistory, State, StudyHistory
from diffsearch.report import claims, fronts, phrases, tables
from diffsearch.report.blocks import Keep, code, fold, lines, table
from diffsearch.report.curves import learning_curves
from diffsearch.report.figures import Drawn, best_so_far
from diffsearch.report.finals import BIAS
from diffsearch.report.ledger import ALONE, NEW, TOTAL, entry
from diffsearch.report.phrases import duration, maybe, number, plus_minus, two_digits
from diffsearch.report.ranks import STAGES, rankable, screened

SPREAD = (
    "± is within one evaluation's images, not over seeds: the standard deviation over subsets of them, or the standard "
    "error of an extrapolation."
)


def opening(history: StudyHistory) -> str:
    """What was asked, what won and how surely, what it cost."""
    return lines(
        phrases.unfinished_sentence(history),
        phrases.asked_sentence(history),
        fronts.front_sentence(history) if history.objectives else claims.won_sentence(history),
        fronts.constraint_sentences(history),
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


def all_evaluations(history: StudyHistory, csv: str) -> str:
    """Every evaluation, best first, of other sample counts and of failed runs below; a screen's in a table apart."""
    if history.screen is None:
        return _all_evaluations(history, csv, "## All evaluations", "Every evaluation")
    full = replace(history, runs=tuple(replace(run, screened=()) for run in history.runs), screen=None)
    return lines(
        _all_evaluations(full, csv, "## All evaluations", "Every full score"),
        _all_evaluations(screened(history), csv, "### By the screen", "Every score of the screen"),
    )


def _all_evaluations(history: StudyHistory, csv: str, head_line: str, folded: str) -> str:
    every = tables.evaluations(history)
    if every.empty:
        return lines(head_line, "None.")
    ranked = {sheet.key for stage in STAGES for _, sheets in rankable(history, stage) for sheet in sheets}
    every = every.assign(ranked=every["key"].isin(ranked))
    every = every.sort_values(
        ["samples", "ranked", history.objective], ascending=[False, False, history.direction == "min"], kind="stable"
    )
    biased = [metric for metric in history.metrics if tables.bias_column(metric) in every]
    scores = [name for metric in history.metrics for name in (metric, *(["bias"] if metric in biased else []))]
    head = ["run", "state", "epoch", "sampling", *scores, "samples", "train s", "sample s", "score s"]
    rows = [
        [
            row["run"],
            row["state"] + ("" if row["ranked"] else f" ({row.get('broken') or 'not ranked'})"),
            str(row["epoch"]),
            row["sampling"],
            *(cell for m in history.metrics for cell in _score_cells(row, m, m in biased)),
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
        text += f" {SPREAD}"
    if biased:
        text += f" {BIAS}"
    return lines(head_line, text, fold(folded, body))


def _score_cells(row: Any, metric: str, biased: bool) -> list[str]:
    """A score with its spread, and its bias where the table has a column of it."""
    score = plus_minus(maybe(row[metric]), maybe(row.get(tables.spread_column(metric))))
    return [score, two_digits(maybe(row[tables.bias_column(metric)]))] if biased else [score]


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
            if outcome.ok or outcome.state in (State.RUNNING, State.INFEASIBLE):
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
