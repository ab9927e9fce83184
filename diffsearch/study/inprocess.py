"""Executes a study in this process, one run after the other: `--workers 0`, for a debugger and for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from diffsearch.records import Outcome
from diffsearch.study.conductor import Conductor, Task
from diffsearch.trial import Item, Scored, run_trial


def run(conductor: Conductor, listen: Callable[[Task, Item | Outcome | None], None], beat: Callable[[], None]) -> None:
    """Hand each task that the conductor has to `run_trial`, until it has none."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _threads(max(1, int(conductor.spec.resources.cpu or 1))):
        while isinstance(task := conductor.next(), Task):
            listen(task, None)
            listen(task, _execute(conductor, task, device, listen, beat))
    if conductor.gave_up is not None:
        raise conductor.gave_up


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many as a worker of Ray's has: a run's last bits depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _execute(
    conductor: Conductor,
    task: Task,
    device: torch.device,
    listen: Callable[[Task, Item | Outcome | None], None],
    beat: Callable[[], None],
) -> Outcome:
    with contextlib.closing(run_trial(task.request, device)) as items:
        while True:
            beat()
            try:
                item = next(items)
            except StopIteration as end:
                return conductor.ended(task, end.value)
            listen(task, item)
            if not conductor.heard(task, item) and isinstance(item, Scored):
                return conductor.stop(task, item.evaluation.epoch)
