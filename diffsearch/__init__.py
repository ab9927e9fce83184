"""diffsearch: which hyperparameters of a small diffusion model, at what cost, and how sure are we."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Best", "Study", "load", "open_study", "trainable", "write_report"]

if TYPE_CHECKING:
    from diffsearch.api import Best, Study, load, open_study, trainable, write_report


def __getattr__(name: str) -> Any:
    """`diffsearch.load` and the other names of `diffsearch.api`, imported (with torch) when first asked for."""
    if name in __all__:
        from diffsearch import api

        return getattr(api, name)
    raise AttributeError(f"module 'diffsearch' has no attribute '{name}'")
