"""Curves over the epochs: losses apart by kind, validation dashed, and every metric besides the objective."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from diffsearch.records import RunHistory, StudyHistory
from diffsearch.report.curves import LOSSES, loss_curves, metric_curves
from diffsearch.report.figures import Drawn
from diffsearch.report.ranks import configurations
from diffsearch.space.settings import RunSettings


def with_losses(history: StudyHistory, *kinds: str) -> StudyHistory:
    """The study with its runs' losses renamed, in turn for each configuration."""
    found = configurations(history)
    kind_of = {run.key: kinds[place % len(kinds)] for place, c in enumerate(found) for run in c.runs}
    return dataclasses.replace(history, runs=tuple(_renamed(run, kind_of.get(run.key)) for run in history.runs))


def _renamed(run: RunHistory, kind: str | None) -> RunHistory:
    settings: RunSettings = run.settings
    training = dataclasses.replace(settings.training, loss=kind or settings.training.loss)
    return dataclasses.replace(run, settings=dataclasses.replace(settings, training=training))


def watched(history: StudyHistory) -> StudyHistory:
    """The study with a validation loss at each epoch, a tenth above the other."""
    runs = [
        dataclasses.replace(run, epochs=tuple(dataclasses.replace(e, validation_loss=1.1 * e.loss) for e in run.epochs))
        for run in history.runs
    ]
    return dataclasses.replace(history, runs=tuple(runs))


def drawn(figure: Drawn | None) -> Drawn:
    assert figure is not None
    return figure


def height(figure: Drawn) -> int:
    return Image.open(io.BytesIO(figure.png)).size[1]


def test_losses_of_one_kind_share_a_panel_and_others_have_their_own(history) -> None:
    one, two = (drawn(loss_curves(with_losses(history, *kinds))) for kinds in (("x0-l2",), ("x0-l2", "v-l1")))
    assert height(two) > 1.5 * height(one)
    assert "v-l1" in two.alt and "v-l1" not in one.alt
    assert "each has its panel" in two.caption and "panel" not in one.caption


def test_the_loss_on_unseen_images_is_dashed_and_named(history) -> None:
    plain, both = drawn(loss_curves(history)), drawn(loss_curves(watched(history)))
    assert "dashed" in both.caption and "dashed" not in plain.caption
    run = configurations(history)[0].runs[configurations(history)[0].typical]
    assert f"(validation {1.1 * run.epochs[-1].loss:.3g}" in both.alt and "validation" not in plain.alt
    assert both.png != plain.png


def test_the_losses_are_those_of_the_winner_and_the_next(history, make) -> None:
    for found in configurations(history):
        assert found.runs[found.typical].key[:6] in drawn(loss_curves(history)).alt
    alone = make(count=12, finalists=False)
    assert drawn(loss_curves(alone)).alt.count("after epoch 1,") == LOSSES


def test_every_metric_besides_the_objective_has_a_panel(history) -> None:
    figure = drawn(metric_curves(history))
    assert "kd-digits" in figure.alt and "fd-digits:" not in figure.alt and "fd-digits" in figure.caption
    only = dataclasses.replace(history, metrics=("fd-digits",))
    assert metric_curves(only) is None
    first_only = dataclasses.replace(
        history,
        runs=tuple(dataclasses.replace(run, evaluations=run.evaluations[:1]) for run in history.runs),
    )
    assert metric_curves(first_only) is None  # one point is no curve


@pytest.mark.parametrize("curves", [loss_curves, metric_curves])
def test_nothing_to_draw(history, curves) -> None:
    assert curves(dataclasses.replace(history, runs=())) is None


def test_a_curve_is_drawn_in_the_colour_of_its_run(history) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(drawn(loss_curves(history)).png)).convert("RGB")).reshape(-1, 3)
    blue = np.abs(pixels.astype(int) - (0x00, 0x72, 0xB2)).max(1) < 8  # of the first of the palette, the winner's
    assert blue.sum() > 500
