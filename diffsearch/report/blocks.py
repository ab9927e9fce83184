"""Markdown's building blocks, written so that they also read well as plain text."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffsearch.report.figures import Drawn


Keep = Callable[["Drawn | None"], str]  # stores a figure and returns its Markdown, "" for None


def lines(*parts: str) -> str:
    """Paragraphs with an empty line between them; empty parts vanish."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip())


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table whose columns line up in the source, too; `right` names the columns aligned to the right."""
    cells = [[cell(text) for text in row] for row in (head, *rows)]
    widths = [max(3, *(width(row[column]) for row in cells)) for column in range(len(head))]
    to_right = set(right)
    rule = ["-" * (size - 1) + ":" if column in to_right else "-" * size for column, size in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        padded = []
        for column, text in enumerate(row):
            space = " " * (widths[column] - width(text))
            padded.append(space + text if column in to_right else text + space)
        return "| " + " | ".join(padded) + " |"

    return "\n".join(line(row) for row in (cells[0], rule, *cells[1:]))


def cell(text: str) -> str:
    """Text that can't break out of its table cell or become markup."""
    flat = " ".join(str(text).split()) if "\n" in str(text) else str(text)
    return html.escape(flat, quote=False).replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")


def width(text: str) -> int:
    """Columns on a terminal: wide characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def code(text: str, language: str) -> str:
    """A fenced block, its fence longer than any in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    body = text.strip("\n")
    return f"{fence}{language}\n{body}\n{fence}"


def fold(summary: str, body: str) -> str:
    return f"<details>\n<summary>{html.escape(summary)}</summary>\n\n{body}\n\n</details>"


def picture(path: str, alt: str) -> str:
    """An image, 700 px wide at most."""
    quoted = html.escape(alt, quote=False).replace('"', "&quot;")
    return f'<img src="{html.escape(path)}" width="700" alt="{quoted}">'
