"""A member and its options in one word, as on a command line."""

from __future__ import annotations

import pytest

from diffsearch.errors import DiffsearchError
from diffsearch.space.members import read_choice, spelled
from diffsearch.space.settings import Choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("ddim", Choice("ddim")),
        (" ddim:eta=0.5 ", Choice.of("ddim", eta=0.5)),
        ("ddim:eta=0", Choice("ddim")),  # its default: one setting has one spelling
        ("ancestral:variance=beta", Choice.of("ancestral", variance="beta")),
    ],
)
def test_a_choice_is_read_and_spelled(text: str, choice: Choice) -> None:
    assert read_choice("sampler", text) == choice == read_choice("sampler", spelled(choice))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ddmi", "Did you mean 'ddim'"),
        ("ddim:ta=1", "no option 'ta'.*Did you mean 'eta'"),
        ("ddim:eta=often", "eta should be a number"),
        ("ddim:eta", "eta should be a number"),
        ("ddim:eta=0.1,eta=0.2", "OPTION=VALUE"),
        ("ddim:{", "OPTION=VALUE"),
        ("ancestral:variance=bta", "Did you mean 'beta'"),
    ],
)
def test_what_is_no_choice_is_refused_with_what_is(text: str, told: str) -> None:
    with pytest.raises(DiffsearchError, match=told):
        read_choice("sampler", text)
