"""Pictures made of images: samples beside real ones, and what each noise process does to one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffsearch.data.normalise import Normalization
from diffsearch.diffusion import Schedule, noising_strip
from diffsearch.errors import DataError
from diffsearch.report import style
from diffsearch.report.contact import Row, contact_sheet, enlarged, rgb
from diffsearch.report.figures import Drawn
from diffsearch.space.settings import Choice

ROWS, COLUMNS = 8, 16  # of a grid of samples
STRIP_STEPS = 9  # images of a noising strip


def samples_beside_real(samples: Path | None, real: style.Pixels | None, title: str) -> Drawn | None:
    """Two grids side by side, pixels enlarged by a whole number and never blended.

    Args:
        samples: PNG of ROWS x COLUMNS samples, or None.
        real: (N, C, H, W) uint8, or None; its first ROWS * COLUMNS are shown.
        title: what stands over the samples.

    Raises:
        DataError: the PNG can't be read.
    """
    panels: list[tuple[str, style.Pixels]] = []
    if samples is not None:
        try:
            with Image.open(samples) as image:
                panels.append((title, np.asarray(image.convert("RGB"))))
        except OSError as error:
            raise DataError(f"{samples}: not a readable picture of samples: {error}") from error
    if real is not None and len(real):
        panels.append(("real images", tile(real[: ROWS * COLUMNS])))
    if not panels:
        return None
    alt = " beside ".join(f"a grid of {name}" for name, _ in panels)
    return Drawn("samples", _side_by_side(panels), f"{alt[0].upper()}{alt[1:]}, {ROWS} rows of {COLUMNS}.")


def noising_strips(processes: Sequence[Choice], steps: int, real: style.Pixels) -> Drawn | None:
    """One real image under each noise process at STRIP_STEPS even times from 0 to T; the same noise in each row.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps on images in [-1, 1], shown clipped to that range.
    """
    if not processes or not len(real):
        return None
    span = Normalization(-1.0, 1.0)
    x_0 = span.encode(torch.from_numpy(np.array(real[0]))).double()
    ts = np.unique(np.linspace(0, steps, min(STRIP_STEPS, steps + 1)).round().astype(int)).tolist()
    rows, kept = [], []
    for process in processes:
        schedule = Schedule.build(process, steps)
        noised = span.decode(noising_strip(schedule, x_0, ts, torch.Generator().manual_seed(0))).numpy()
        alpha_bar = [float(schedule.alpha_bar[t]) for t in ts]
        rows.append(Row(list(noised), str(process), [f"ᾱ {share(value)}" for value in alpha_bar]))
        kept.append(f"{process} {100 * alpha_bar[len(ts) // 2] ** 0.5:.0f} %")
    what = f"one real image noised from t = 0 to {steps}, with ᾱ, the image's share of the variance, below"
    half = f"Of its signal at t = {ts[len(ts) // 2]} is left: {', '.join(kept)}."
    caption = f"{what[0].upper()}{what[1:]}; the same noise in each row. {half}"
    return Drawn("noising", contact_sheet(rows, [f"t = {t}" for t in ts]), f"Strips of {what}. {half}", caption)


def share(value: float) -> str:
    """0.923, 0.0041, 0: a share of one in as many letters as fit below a small image."""
    return f"{value:.3f}" if 0.1 <= value < 1 else "0" if value < 5e-6 else f"{value:.2g}"


def tile(images: style.Pixels, columns: int = COLUMNS, gap: int = 0) -> style.Pixels:
    """(N, C, H, W) → one (rows * H, columns * (W + gap), 3) picture, white where images run out."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    picture = np.full((rows * height, columns * (width + gap), 3), 255, dtype=np.uint8)
    for place, image in enumerate(images):
        top, left = (place // columns) * height, (place % columns) * (width + gap) + gap // 2
        picture[top : top + height, left : left + width] = rgb(image)
    return picture


def _side_by_side(panels: Sequence[tuple[str, style.Pixels]]) -> bytes:
    """Pictures of one height in a row, with their titles above, in whole pixels throughout."""
    tall = max(picture.shape[0] for _, picture in panels)
    grown = [(name, enlarged(picture, max(1, round(tall / picture.shape[0])))) for name, picture in panels]
    natural = sum(picture.shape[1] for _, picture in grown)
    wanted = style.WIDTH * style.DPI
    factor = max(1, round(wanted / natural))
    grown = [(name, enlarged(picture, factor)) for name, picture in grown]
    gap, head = 24, 46
    height = head + max(picture.shape[0] for _, picture in grown)
    width = sum(picture.shape[1] for _, picture in grown) + gap * (len(grown) - 1)
    with style.house_style():
        figure = style.sheet(height / style.DPI, width / style.DPI)
        figure.set_layout_engine("none")
        left, pictures = 0, []
        for name, picture in grown:
            pictures.append((left, head, picture))
            figure.text(left / width, 1 - 0.25 * head / height, name, ha="left", va="top", fontsize=10 * width / wanted)
            left += picture.shape[1] + gap
        return style.png(figure, pictures)
