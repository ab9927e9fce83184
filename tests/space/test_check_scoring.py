"""Which metrics a study may name, and what it gets beside its objective."""

from __future__ import annotations

import pytest

from diffsearch.errors import ConfigError
from diffsearch.space.load import loads
from diffsearch.space.settings import EvaluationSettings


def evaluation(text: str) -> EvaluationSettings:
    return loads(f"data: {{dataset: mnist-5k}}\nevaluation: {{{text}}}").evaluation


def test_what_needs_no_reference_gets_none_beside_it() -> None:
    assert evaluation("objective: fd-digits").metrics == ("fd-digits", "fd-digits-train")
    assert evaluation("objective: is-digits").metrics == ("is-digits",)
    found = evaluation("objective: fd-digits, metrics: [fd-digits, is-digits], reference: train")
    assert found.metrics == ("fd-digits-train", "is-digits") and found.objective == "fd-digits-train"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("objective: is-random", "is reads class logits, and random has none\n    known: is, is-"),
        ("objective: is-digits-train", "is compares with no reference images\n    write is-digits\n"),
        ("objective: is-train", "is compares with no reference images\n    write is\n"),
        ("objective: is-digits, samples: 99", "99 images are too few for is-digits, which needs at least 100"),
        ("objective: fd-digits, samples: 64", "64 images are too few for fd-digits, which needs at least 65"),
    ],
)
def test_metrics_that_cannot_be_are_told_why(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluation(text)
    assert said in str(caught.value)
