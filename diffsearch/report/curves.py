"""Curves over the epochs: scores at the milestones, and the losses of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffsearch.records import Evaluation, RunHistory, State, StudyHistory
from diffsearch.report import style
from diffsearch.report.figures import Drawn, end_labels
from diffsearch.report.phrases import number, short_labels
from diffsearch.report.ranks import best_sheet, configurations, rankable, ranking_order

LOSSES = 4  # runs whose losses are shown
LEARNING, PANEL = 3.3, 2.0  # heights in inches

Curve = list[tuple[int, float]]  # (epoch, score), ascending


def learning_curves(history: StudyHistory) -> Drawn | None:
    """The search's scores over the milestones: stopped runs thin and grey, the finalists in colour."""
    curves = _curves(history, history.objective)
    if not curves:
        return None
    with style.house_style():
        figure = style.sheet(LEARNING)
        shown = _panel(figure.add_subplot(), history, history.objective, curves, LEARNING - 0.5)
        stopped = sum(run.outcome.state is State.STOPPED_EARLY for run, _ in rankable(history))
        alt = f"Learning curves of {len(curves)} runs, {stopped} of them stopped early (grey). In colour: "
        return Drawn("learning", style.png(figure), f"{alt}{_in_words(shown, curves)}.")


def metric_curves(history: StudyHistory) -> Drawn | None:
    """The same of every metric that was computed besides the objective, a panel each."""
    found = {metric: _curves(history, metric) for metric in history.metrics if metric != history.objective}
    found = {metric: curves for metric, curves in found.items() if any(len(curve) > 1 for curve in curves.values())}
    if not found:
        return None
    with style.house_style():
        figure = style.sheet(0.4 + PANEL * len(found))
        panels = figure.subplots(len(found), 1, squeeze=False)[:, 0]
        texts, bests = [], []
        for axes, (metric, curves) in zip(panels, found.items(), strict=True):
            shown = _panel(axes, history, metric, curves, PANEL - 0.2)
            texts.append(f"{metric}: {_in_words(shown, curves)}")
            bests.append(f"{metric} {_in_words(shown[:1], curves)}")
            axes.label_outer()
        caption = f"Every metric besides {history.objective}, where that is best; in the best run {'; '.join(bests)}."
        return Drawn("metrics", style.png(figure), f"Curves over the milestones of {'. Of '.join(texts)}.", caption)


def loss_curves(history: StudyHistory) -> Drawn | None:
    """The losses of the winner and the runners-up, a panel for each kind, as two kinds can't be compared."""
    found = [configuration.runs[configuration.typical] for configuration in configurations(history)]
    runs = [run for run in found or ranking_order(history) if len(run.epochs) > 1][:LOSSES]
    if not runs:
        return None
    kinds = list(dict.fromkeys(run.settings.training.loss for run in runs))
    labels, paint = short_labels(history, runs), style.colours(history)
    with style.house_style():
        figure = style.sheet(0.4 + PANEL * len(kinds))
        for axes, kind in zip(figure.subplots(len(kinds), 1, squeeze=False)[:, 0], kinds, strict=True):
            ends = []
            for run, label in zip(runs, labels, strict=True):
                if run.settings.training.loss == kind:
                    tone = paint.get(run.key, style.MUTED)
                    _losses(axes, run, tone)
                    ends.append(((run.epochs[-1].epoch, run.epochs[-1].loss), label, tone))
            if style.decades(float(value) for line in axes.lines for value in line.get_ydata()):
                style.log_axis(axes.yaxis)
            axes.set_ylabel(kind)
            axes.set_xlabel("epochs")
            axes.xaxis.get_major_locator().set_params(integer=True)
            end_labels(axes, ends, PANEL - 0.2)
            style.grid_lines(axes, "y")
            axes.label_outer()
        watched = any(record.validation_loss is not None for run in runs for record in run.epochs)
        caption = "The loss of training" + (", and dashed on images that aren't trained on" if watched else "")
        caption += f"; of the best run {_loss_in_words(runs[0])}."
        caption += " Different losses can't be compared: each has its panel." if len(kinds) > 1 else ""
        words = "; ".join(f"{run.key[:6]} {_loss_in_words(run)}" for run in runs)
        alt = f"Loss over the epochs: {words}."
        return Drawn("losses", style.png(figure), alt, caption)


def _curves(history: StudyHistory, metric: str) -> dict[str, Curve]:
    """Run key → the scores of one metric, at each epoch those of the sampling point with the best objective."""
    found: dict[str, Curve] = {}
    for run, sheets in rankable(history):
        by_epoch: dict[int, list[Evaluation]] = {}
        for sheet in sheets:
            by_epoch.setdefault(sheet.epoch, []).append(sheet)
        best = [best_sheet(history, by_epoch[epoch]) for epoch in sorted(by_epoch)]
        curve = [(sheet.epoch, sheet.scores[metric].value) for sheet in best if metric in sheet.scores]
        if curve:
            found[run.key] = curve
    return found


def _panel(axes: Any, history: StudyHistory, metric: str, curves: Mapping[str, Curve], tall: float) -> list[RunHistory]:
    """Draw the curves of one metric in axes about `tall` inches high; returns the runs in colour, best first."""
    paint = style.colours(history)
    for run, _ in rankable(history):
        if run.key not in curves:
            continue
        stopped = run.outcome.state is State.STOPPED_EARLY
        tone = paint.get(run.key, style.FAINT if stopped else style.MUTED)
        width = 2.0 if run.key in paint else 0.8 if stopped else 1.2
        axes.plot(*zip(*curves[run.key], strict=True), color=tone, linewidth=width, marker="o",
                  markersize=2.2 * width**0.5, zorder=3 if run.key in paint else 2)  # fmt: skip
    if style.decades(score for curve in curves.values() for _, score in curve):
        style.log_axis(axes.yaxis)
    if len(history.milestones) > 1 and history.milestones[-1] / history.milestones[0] >= 8:
        axes.set_xscale("log")
    axes.set_xticks(history.milestones, [str(epoch) for epoch in history.milestones])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("epochs")
    axes.set_ylabel(f"{metric} ({history.samples:,} samples)")
    shown = [run for run in ranking_order(history) if run.key in paint and run.key in curves]
    labels = short_labels(history, shown)
    ends = [(curves[run.key][-1], label, paint[run.key]) for run, label in zip(shown, labels, strict=True)]
    end_labels(axes, ends, tall)
    style.grid_lines(axes, "y")
    return shown


def _in_words(shown: Sequence[RunHistory], curves: Mapping[str, Curve]) -> str:
    return "; ".join(
        f"{run.key[:6]}: " + ", ".join(f"{number(score)} at epoch {epoch}" for epoch, score in curves[run.key])
        for run in shown
    )


def _losses(axes: Any, run: RunHistory, tone: str) -> None:
    axes.plot([record.epoch for record in run.epochs], [record.loss for record in run.epochs], color=tone)
    watched = [(record.epoch, record.validation_loss) for record in run.epochs if record.validation_loss is not None]
    if watched:
        axes.plot(*zip(*watched, strict=True), color=tone, linestyle=(0, (3, 1.5)), linewidth=1.4)


def _loss_in_words(run: RunHistory) -> str:
    first, last = run.epochs[0], run.epochs[-1]
    text = f"{run.settings.training.loss} {number(first.loss)} after epoch {first.epoch}"
    text += f", {number(last.loss)} after epoch {last.epoch}"
    return text if last.validation_loss is None else f"{text} (validation {number(last.validation_loss)})"
