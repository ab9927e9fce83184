"""Names of metrics: every kind on every extractor that can serve it, and why others are no names."""

from __future__ import annotations

import pytest

from diffsearch import registry
from diffsearch.errors import DiffsearchError
from diffsearch.space.metric_names import MetricName, against_train, find, known_metrics, parse, scale_of


@pytest.fixture
def plain_extractor() -> str:
    """The name of an extractor that is no classifier."""
    registry.extractor.register("plain", dim=3, image_shape=None)(object)
    return "plain"


def test_every_known_name_is_parsed_to_itself() -> None:
    names = [str(name) for name in known_metrics()]
    assert {"fid", "kid", "is", "fd-digits", "is-digits", "fd-digits-train", "fid-train"} <= set(names)
    assert {"fid-infinity", "fid-infinity-train", "fd-infinity-digits", "fd-infinity-digits-train"} <= set(names)
    assert len(names) == len(set(names))
    for name in known_metrics():
        assert parse(str(name)) == name


def test_names_are_taken_apart() -> None:
    assert parse("fid") == MetricName("fd", "inception", "test")
    assert parse("kd-digits-train") == MetricName("kd", "digits", "train")
    assert str(parse("fid").against("train")) == "fid-train"
    assert parse("fid").direction == "min" and parse("fid").minimum_samples == 2049
    assert parse("fid-infinity") == MetricName("fd-infinity", "inception", "test")
    assert parse("fd-digits").minimum_samples == 65 and parse("fd-infinity-digits").minimum_samples == 384
    assert parse("fid").fits((3, 64, 64)) and not parse("fd-digits").fits((3, 64, 64))


def test_distances_that_are_positive_are_compared_on_the_log_scale() -> None:
    scales = {name: scale_of(name) for name in ("fid", "fd-digits-train", "fd-infinity-digits", "kd-digits", "is")}
    assert scales == dict.fromkeys(scales, "linear") | {"fid": "log", "fd-digits-train": "log"}
    assert scale_of("a-metric-of-a-file-that-isnt-loaded") == "linear"


def test_what_needs_no_reference_has_one_name_only() -> None:
    assert parse("is") == MetricName("is", "inception", None) and parse("is").direction == "max"
    assert parse("is").against("train") == parse("is") and against_train("is-digits") == "is-digits"
    assert against_train("fd-digits") == against_train("fd-digits-train") == "fd-digits-train"
    assert against_train("no-metric") == "no-metric"
    with pytest.raises(DiffsearchError, match=r"is compares with no reference images\. write is-digits$"):
        parse("is-digits-train")


def test_logits_are_read_from_classifiers_alone(plain_extractor: str) -> None:
    assert find("fd-plain") is not None and find("is-plain") is None
    with pytest.raises(DiffsearchError, match=r"is reads class logits, and plain has none\. known: .*is-digits"):
        parse("is-plain")


@pytest.mark.parametrize(
    "name", ["fd-digit", "fidd", "digits", "fd-inception", "fd-infinity-inception", "is-inception", "fd-digits-val", ""]
)
def test_unknown_names_are_answered_with_the_known(name: str) -> None:
    with pytest.raises(DiffsearchError, match=r"known: .*fd-digits, .*is, .*may end in -train\.$") as caught:
        parse(name)
    assert name != "fd-digit" or "Did you mean 'fd-digits'?" in str(caught.value)
