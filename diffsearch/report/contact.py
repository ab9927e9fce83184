"""Contact sheets: rows of small images with words beside, above and below them, each pixel a whole number of dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from diffsearch.report import style
from diffsearch.report.style import Pixels

_HEAD, _LABEL, _NOTE = 8.5, 8.5, 7.5  # sizes of letters in points
_LINE = 1.6  # height of a line of text, in sizes of its letters
_LARGEST = 16  # dots a pixel at most
_GAP = 1 / 14  # of an image's width, between images that belong together


@dataclass(frozen=True, slots=True)
class Row:
    """Images side by side; None leaves a place empty."""

    images: Sequence[Pixels | None]  # (C, H, W) each, all of one size
    label: str = ""  # left of the row
    notes: Sequence[str] = ()  # below the images, one each
    joined: bool = False  # belongs to the row above: no space between


def contact_sheet(rows: Sequence[Row], heads: Sequence[str] = ()) -> bytes:
    """A PNG of the rows, pixels enlarged by a whole number and never blended.

    Args:
        rows: at least one image in all.
        heads: above the columns, one each; may be fewer.
    """
    columns = max(len(row.images) for row in rows)
    _, tall, wide = next(image for row in rows for image in row.images if image is not None).shape
    dots = round(style.WIDTH * style.DPI)
    margin = max(_wide(row.label) for row in rows)
    factor = max(1, min(_LARGEST, int((dots - margin) / (columns * wide * (1 + _GAP)))))
    tall, wide = tall * factor, wide * factor
    gap = max(2, round(wide * _GAP))
    across = max(gap, min((dots - margin - columns * wide) // max(1, columns - 1), wide // 3))
    width = max(dots, margin + columns * (wide + across) - across)
    zoom = width / dots  # large images make a larger picture, with larger letters in it
    tops, height = _tops(rows, tall, gap, _high(_HEAD * zoom) if heads else 0, zoom)
    lefts = [margin + column * (wide + across) for column in range(columns)]
    with style.house_style():
        figure = style.sheet(height / style.DPI, width / style.DPI)
        figure.set_layout_engine("none")

        def write(x: float, y: float, text: str, size: float, tone: str, across: str, down: str) -> None:
            figure.text(x / width, 1 - y / height, text, fontsize=size * zoom, color=tone, ha=across, va=down)

        middles = [left + wide / 2 for left in lefts]
        for x, head in zip(middles, heads, strict=False):
            write(x, 5 * zoom, head, _HEAD, style.INK, "center", "top")
        for row, top in zip(rows, tops, strict=True):
            write(0, top + tall / 2, row.label, _LABEL, style.INK, "left", "center")
            for x, note in zip(middles, row.notes, strict=False):
                write(x, top + tall + 5 * zoom, note, _NOTE, style.MUTED, "center", "top")
        pictures = [
            (left, top, enlarged(rgb(image), factor))
            for row, top in zip(rows, tops, strict=True)
            for left, image in zip(lefts, row.images, strict=False)
            if image is not None
        ]
        return style.png(figure, pictures)


def _tops(rows: Sequence[Row], tall: int, gap: int, head: int, zoom: float) -> tuple[list[int], int]:
    """Where each row begins and where the last one ends, in dots from above."""
    tops, y = [], head
    for place, row in enumerate(rows):
        y += 0 if place == 0 else gap if row.joined else 3 * gap
        tops.append(y)
        y += tall + (_high(_NOTE * zoom) if row.notes else 0)
    return tops, y


def _wide(text: str) -> int:
    """Dots that a label takes, with some room after it."""
    if not text:
        return 0
    letters = FontProperties(family="DejaVu Sans")
    lines = [TextPath((0, 0), line, size=_LABEL, prop=letters) for line in text.splitlines()]
    return round((max(line.get_extents().width for line in lines) / 72 + 0.1) * style.DPI)


def _high(size: float) -> int:
    return round(size / 72 * _LINE * style.DPI)


def rgb(image: Pixels) -> Pixels:
    """(C, H, W) → (H, W, 3), grey where C is 1."""
    planes = image if image.shape[0] == 3 else np.repeat(image[:1], 3, axis=0)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def enlarged(picture: Pixels, factor: int) -> Pixels:
    """(H, W, 3) with each pixel a square of `factor` dots."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)
