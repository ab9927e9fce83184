"""Numbers with no more digits than they deserve, and sentences that claim no more than the numbers do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from diffsearch.records import CUT, Bounds, RunHistory, State, StudyHistory
from diffsearch.report.axes import axis_names, show_value
from diffsearch.report.ledger import ALONE, NEW, entry, ledger
from diffsearch.report.ranks import Winner
from diffsearch.scoring.statistics import Summary, judge, summarise
from diffsearch.space.metric_names import scale_of

SHORT = {"steps": "T", "batch_size": "batch", "learning_rate": "lr"}  # words before a number in a list of settings
LABEL = 36  # letters of a label beside a line


# --- numbers ------------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Three significant digits: 0.0123, 6.82, 912, 84,200; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(float(f"{value:.2e}"))))
    if size < -4 or size >= 7:
        return f"{value:.2e}"
    return _fixed(value, 2 - size)


def maybe(value: Any) -> float | None:
    """A table's number, None where pandas holds no value."""
    return None if value is None or pd.isna(value) else float(value)


def estimate(summary: Summary | None) -> str:
    """A mean and its 95 % interval, `33.6 [30.3, 37.3]`; an en dash where there is no mean."""
    return "–" if summary is None else bracket(summary.mean, *(summary.interval or (None, None)))


def bracket(value: float | None, low: float | None, high: float | None) -> str:
    """`33.6 [30.3, 37.3]`: two digits of the way to the nearer end, and all three numbers to that place."""
    if value is None or low is None or high is None:
        return number(value)
    near = min(value - low, high - value)
    if near <= 0:
        return f"{number(value)} [{number(low)}, {number(high)}]"
    place = 1 - math.floor(math.log10(float(f"{near:.1e}")))
    if place > 5 or -place > 6:
        return f"{value:.2e} [{low:.2e}, {high:.2e}]"
    return f"{_fixed(value, place)} [{_fixed(low, place)}, {_fixed(high, place)}]"


def plus_minus(value: float | None, error: float | None) -> str:
    """`5.9 ± 0.3`, a score and its spread: that to one digit, two where it begins with 1, the value to that place."""
    if value is None or error is None:
        return number(value)
    if error == 0:
        return f"{number(value)} ± 0"
    digits, power = f"{error:.1e}".split("e")
    place = (1 if digits.startswith("1") else 0) - int(power)
    if place > 5:
        size = math.floor(math.log10(max(abs(value), error)))
        if size >= 0:
            return f"{_fixed(value, 5)} ± {error:.0e}"
        return f"({plus_minus(value / 10.0**size, error / 10.0**size)})e{size}"
    return f"{_fixed(value, place)} ± {_fixed(error, place)}"


def two_digits(value: float | None) -> str:
    """An estimate that deserves no more: `1.3`, `0.084`, `120`."""
    return "–" if value is None else f"{float(f'{value:.1e}'):,.10g}"


def compact(value: float) -> str:
    """`112 k`, `1.2 M`, `338`: counts in prose."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            scaled = value / size
            return (f"{scaled:.0f}" if scaled >= 9.95 else f"{scaled:.1f}") + unit
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """`41 s`, `6:02` (minutes and seconds), `1:02:33`."""
    if seconds < 0.05:
        return "0 s"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def several(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def listing(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else "nothing"


def _fixed(value: float, places: int) -> str:
    return f"{value:,.{places}f}" if places > 0 else f"{round(value, places):,.0f}"


# --- words --------------------------------------------------------------------------------------------------------


def settings_text(history: StudyHistory, run: RunHistory) -> str:
    """`x0-l2, T 15, linear-noise, 16-32-64, batch 64`: the values of the axes, numbers with their name."""
    names = axis_names(history)
    words = []
    for path, name in names.items():
        if path not in run.point:
            continue
        value = run.point[path]
        named = isinstance(value, int | float) or value is None
        words.append(f"{SHORT.get(name, name)} {show_value(value)}" if named else show_value(value))
    return ", ".join(words) or "the one point of this study"


def bounds_text(history: StudyHistory, metric: str, samples: int) -> str:
    """The floor and the ceiling of a metric at one sample count, or that they weren't measured."""
    found = bounds_of(history, metric, samples)
    if found is None:
        return f"{metric} on {samples:,} samples; its floor and its noise ceiling were not measured at this count"
    return (
        f"{metric} on {samples:,} samples: real images score {number(found.floor)} (floor), "
        f"pure noise {number(found.ceiling)}"
    )


def bounds_of(history: StudyHistory, metric: str, samples: int) -> Bounds | None:
    return next((b for b in history.bounds if b.metric == metric and b.samples == samples), None)


# --- sentences ----------------------------------------------------------------------------------------------------


def asked_sentence(history: StudyHistory) -> str:
    names = list(axis_names(history).values())
    trained = [run for run in history.runs if run.outcome.state is not State.INFEASIBLE]
    search = sum(run.stage == "search" for run in trained)
    finals = len(trained) - search
    goal = "lowest" if history.direction == "min" else "highest"
    what = f"Which {listing(names)} give" if len(names) > 1 else f"Which {names[0]} gives" if names else "What is"
    last = history.milestones[-1] if history.milestones else 0
    aim = f"{goal} {history.objective}"
    if history.objectives:
        aim = f"best trade-off of {listing(history.objectives)}"
    text = f"{what} the {aim} after at most {several(last, 'epoch')}"
    text += f" on {history.train_images:,} images?"
    text += f" {several(search, 'run')} searched, scored on "
    if history.screen is None:
        text += f"{history.samples:,} samples each milestone"
    else:
        passed, of = (sum(map(len, kind)) for kind in ([r.evaluations for r in history.runs if r.stage == "search"],
                                                       [r.screened for r in history.runs]))  # fmt: skip
        text += f"{history.screen.samples:,} samples each milestone by {history.screen.objective} (the screen), "
        text += f"{passed:,} of {several(of, 'evaluation')} then in full on {history.samples:,}"
    return text + (f", and {several(finals, 'run')} repeated the best over fresh seeds." if finals else ".")


def cost_sentence(history: StudyHistory) -> str:
    table = ledger(history)
    trained, alone = entry(table, NEW, "epochs"), entry(table, ALONE, "epochs")
    images, calls = entry(table, NEW, "images_trained"), entry(table, NEW, "network_calls")
    workers = several(history.workers, "worker")
    sessions = f" over {history.sessions} sessions" if history.sessions > 1 else ""
    return (
        f"It cost {duration(history.wall_s)} on {workers}{sessions}: {trained:,.0f} of the {alone:,.0f} epochs that "
        f"training every milestone alone takes, {compact(images)} images trained and {compact(calls)} network calls."
    )


def ending_sentence(history: StudyHistory) -> str:
    """What ended the search, and after how much; empty where it goes on or nobody noted it."""
    if not history.search_ended:
        return ""
    runs = [run for run in history.runs if run.stage == "search"]
    cut = sum(CUT in run.outcome.details for run in runs)
    text = f"The search was ended by {history.search_ended} after {several(len(runs), 'run')}"
    return text + (f", {cut} of them cut off at a milestone." if cut else ".")


def unfinished_sentence(history: StudyHistory) -> str:
    """Empty where every run of the study has ended."""
    count = sum(str(run.outcome.state) in ("running", "killed") for run in history.runs)
    if not count:
        return ""
    verb = "is" if count == 1 else "are"
    text = f"**Unfinished:** {several(count, 'run')} of {len(history.runs)} {verb} still to end;"
    return f"{text} the same command goes on from here."


def axis_sentence(history: StudyHistory, table: pd.DataFrame, axis: str) -> str:
    """What an axis table lets one say; `axis` is the name in the text."""
    if axis == "epochs":
        return _epochs_sentence(history, table)
    if len(table) < 2:
        return "Only one value was tried."
    last = history.milestones[-1]
    first = history.milestones[0]
    sentence = _comparison(history, table, "", axis, last)
    if sentence:
        return sentence
    earlier = _comparison(history, table, "first_", axis, first) if first != last else ""
    start = f"Too few runs reached epoch {last} to compare values there."
    return f"{start} {earlier}" if earlier else f"{start} Nothing is claimed."


def _comparison(history: StudyHistory, table: pd.DataFrame, of: str, axis: str, epoch: int) -> str:
    """The best mean at one epoch against the others; empty where fewer than two values have an interval.

    Sampling points are compared run by run, over the runs that have them all.
    """
    scores: dict[str, dict[str, float]] = dict(zip(table["value"].astype(str), table[f"{of}scores"], strict=True))
    scores = {value: by_run for value, by_run in scores.items() if len(by_run) > 1}
    paired = axis == "sampling"
    if paired and scores:
        shared = set.intersection(*map(set, scores.values()))
        scores = {value: {run: by_run[run] for run in by_run if run in shared} for value, by_run in scores.items()}
    values = list(scores)
    if len(values) < 2 or min(map(len, scores.values())) < 2:
        return ""
    samples = [[by_run[run] for run in sorted(by_run)] for by_run in scores.values()]
    scale = scale_of(history.objective)
    verdict = judge(samples, history.direction, scale, paired)
    best, summary = values[verdict.first], summarise(samples[verdict.first], scale)
    best = f"{table.attrs.get('name', 'value')} {best}" if best[0].isdigit() or best[0] == "[" else best
    tied = [values[place] for place in verdict.ties]
    apart = [value for place, value in enumerate(values) if place not in (verdict.first, *verdict.ties)]
    how = ", compared run by run" if paired else ""
    head = f"At epoch {epoch}, {best} has the best mean ({estimate(summary)}, n {summary.n}{how})"
    if not apart:
        return f"{head}, not told apart from {listing(tied)}."
    if not tied:
        return f"{head}, told apart from {listing(apart)}."
    return f"{head}: told apart from {listing(apart)}, not told apart from {listing(tied)}."


def _epochs_sentence(history: StudyHistory, table: pd.DataFrame) -> str:
    last = history.milestones[-1]
    whole = int(table["n"].max()) if len(table) else 0
    if len(table) < 2 or whole == 0:
        return (
            f"No run was scored at each milestone up to epoch {last}." if len(table) > 1 else "There is one milestone."
        )
    before, after = table.iloc[-2]["mean"], table.iloc[-1]["mean"]
    change = 100 * (after - before) / abs(before) if before else 0.0
    way = "lower" if change < 0 else "higher"
    return (
        f"Over the {several(whole, 'run')} that reached every milestone, the last step (epoch "
        f"{table.iloc[-2]['value']} to {last}) made {history.objective} {abs(change):.0f} % {way}. "
        "The means are over the same runs at each epoch; runs that were stopped are left out."
    )


def winner_note(found: Winner) -> str:
    """Which of the winner's runs stands for it."""
    if found.configuration is None or found.summary.n < 2:
        return f"Run `{found.run.key[:6]}`, epoch {found.sheet.epoch}, {found.sheet.sampling}."
    return (
        f"Run `{found.run.key[:6]}` (seed {found.run.settings.seed}, the median of {found.summary.n}, not the "
        f"luckiest), epoch {found.sheet.epoch}, {found.sheet.sampling}."
    )


def short_labels(history: StudyHistory, runs: Sequence[RunHistory], keys: bool = True) -> list[str]:
    """`b42fa7  batch 32, [-1, 1]`: a run's key with what sets it apart from the others shown, three values at most."""
    differing = [
        path
        for path in axis_names(history)
        if len({show_value(run.point[path]) if path in run.point else "" for run in runs}) > 1
    ]
    if not differing:
        return [run.key[:6] if keys else settings_text(history, run) for run in runs]
    labels = []
    for run in runs:
        own = settings_text(history, replace(run, point={p: run.point[p] for p in differing[:3] if p in run.point}))
        own = own if len(own) <= LABEL else own[: LABEL - 1].rstrip(" ,(") + "…"
        labels.append(f"{run.key[:6]}  {own}" if keys else own)
    return labels
