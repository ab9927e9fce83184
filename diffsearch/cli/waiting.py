"""A word about what takes a while, on stderr and only where that is a terminal; it goes when the work is done."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def waiting(text: str, *, show: bool = True) -> Iterator[Callable[[str], None]]:
    """Show `text` with a spinner; the function it gives changes the text."""
    if not show or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(f"[dim]{text}[/dim]") as status:
        yield lambda words: status.update(f"[dim]{words}[/dim]")
