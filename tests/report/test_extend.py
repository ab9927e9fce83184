"""One more step beyond the edge where the best value lies."""

from __future__ import annotations

import pytest

from diffsearch.report.extend import extended
from diffsearch.space.settings import Choices, Integers, LogUniform, Uniform


@pytest.mark.parametrize(
    ("values", "best", "wider"),
    [
        ((32, 64, 128), 32, (16, 32, 64, 128)),
        ((32, 64, 128), 128, (32, 64, 128, 256)),
        ((128, 64, 32), 32, (128, 64, 32, 16)),
        ((128, 64, 32), 128, (256, 128, 64, 32)),
        ((64, 32, 128), 128, (64, 32, 128, 256)),
        ((1e-4, 1e-3), 1e-3, (1e-4, 1e-3, 1e-2)),
        ((0, 1, 3), 3, (0, 1, 3, 9)),
        ((0, 1, 3), 0, (-1, 0, 1, 3)),
        (((8, 16, 32), (16, 32, 64)), (16, 32, 64), ((8, 16, 32), (16, 32, 64), (32, 64, 128))),
    ],
)
def test_a_list_takes_one_more_step_of_the_same_ratio(values, best, wider):
    found = extended(Choices(values), best)
    assert found is not None and found[0] == Choices(wider)
    assert ("largest" if best == max(values) else "smallest") in found[1]


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ((32, 64, 128), 64),
        (("x0-l2", "v-l2"), "v-l2"),
        (((-1.0, 1.0), (0.0, 1.0)), (0.0, 1.0)),  # ranges of pixels: one end stays
        (((8, 16), (8, 16, 32)), (8, 16)),
        ((5,), 5),
        ((1, 2), 1),  # half a step is no whole number, and 1 is there
        ((False, True), True),
    ],
)
def test_what_has_no_edge_or_no_step_stays(values, best):
    assert extended(Choices(values), best) is None


@pytest.mark.parametrize(
    ("domain", "best", "wider"),
    [
        (LogUniform(1e-4, 1e-2), 9e-3, LogUniform(1e-4, 0.1)),
        (LogUniform(1e-4, 1e-2), 1.2e-4, LogUniform(1e-5, 1e-2)),
        (LogUniform(1e-4, 1e-2), 1e-3, None),
        (Uniform(0.0, 1.0), 0.97, Uniform(0.0, 1.5)),
        (Integers(4, 20), 4, Integers(1, 20)),
        (Integers(1, 3), 1, None),
    ],
)
def test_a_range_grows_by_half_its_width_in_its_own_scale(domain, best, wider):
    found = extended(domain, best)
    assert (found and found[0]) == wider
