"""What a result was computed with, and when two processes compute the same."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from diffsearch.study.facts import MUST_AGREE, differences, environment


def test_the_environment_names_versions_and_device():
    facts = environment()
    assert facts["torch"] == version("torch") and facts["device"] and set(MUST_AGREE) <= set(facts)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, []),
        ({"torch": "2.13.0+cpu"}, ["torch 2.13.0 (here 2.14.1)"]),
        ({"torch": "2.14.1+cpu"}, []),
        ({"git_sha": ""}, []),  # an image has no checkout
        ({"git_sha": "abc+"}, []),
        ({"git_sha": "def"}, ["git_sha def (here abc)"]),
        ({"device": "a GPU", "mlflow": "absent"}, []),
        ({"diffsearch": "0.2.0", "numpy": "1.26.4"}, ["diffsearch 0.2.0 (here 0.1.0)", "numpy 1.26.4 (here 2.4.6)"]),
    ],
)
def test_two_processes_agree_where_they_compute_the_same(changed, told):
    here = {**dict.fromkeys(environment(), "1"), "diffsearch": "0.1.0", "git_sha": "abc"}
    here |= {"torch": "2.14.1", "numpy": "2.4.6"}
    assert differences(here, {**here, **changed}) == told
