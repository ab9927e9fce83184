"""Fixtures of this room: studies whose runs are answered by the test itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from diffsearch.study.conductor import Conductor
    from tests.laboratory import Laboratory


@pytest.fixture
def reopen(laboratory: Laboratory) -> Iterator[Callable[[Mapping[str, Any]], Conductor]]:
    """Opens a session on a study without executing anything, and closes the one before as a kill does."""
    from diffsearch.data.datasets import load as load_data
    from diffsearch.space.axes import member_at
    from diffsearch.study.driver import claimed
    from diffsearch.study.observer import Nobody
    from diffsearch.study.session import Session

    opened: list[Any] = []

    def open_(changes: Mapping[str, Any]) -> Conductor:
        while opened:
            opened.pop().__exit__(None, None, None)
        spec = laboratory.spec(changes)
        lease = claimed(laboratory.store, spec.name, print)
        opened.append(lease)
        data = load_data(member_at(spec.fixed, "data"))
        return Session(spec, laboratory.store, lease.__enter__(), data, Nobody(), "test").conductor

    yield open_
    for lease in opened:
        lease.__exit__(None, None, None)
