"""Pictures made of images: samples beside real ones, and what each noise process does to one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffsearch import registry
from diffsearch.errors import DataError
from diffsearch.report import style
from diffsearch.report.figures import Drawn
from diffsearch.space.settings import Choice

ROWS, COLUMNS = 8, 16  # of a grid of samples
STRIP_STEPS = 9  # images of a noising strip
Pixels = npt.NDArray[np.uint8]


def samples_beside_real(samples: Path | None, real: Pixels | None, title: str) -> Drawn | None:
    """Two grids side by side, pixels enlarged by a whole number and never blended.

    Args:
        samples: PNG of ROWS x COLUMNS samples, or None.
        real: (N, C, H, W) uint8, or None; its first ROWS * COLUMNS are shown.
        title: what stands over the samples.

    Raises:
        DataError: the PNG can't be read.
    """
    panels: list[tuple[str, Pixels]] = []
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


def noising_strips(processes: Sequence[Choice], steps: int, real: Pixels) -> Drawn | None:
    """One real image under each noise process at STRIP_STEPS even times from 0 to T; the same noise in each row.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps on images in [-1, 1], shown clipped to that range.
    """
    if not processes or not len(real):
        return None
    x_0 = real[0].astype(np.float64) / 127.5 - 1
    eps = np.random.default_rng(0).standard_normal(x_0.shape)
    times = np.unique(np.linspace(0, steps, min(STRIP_STEPS, steps + 1)).round().astype(int))
    names = [str(process) for process in processes]
    margin = 0.12 + 0.066 * max(map(len, names))  # inches for the longest name at 9 points
    gap = max(1, x_0.shape[2] // 9)
    strip_width = style.WIDTH - margin
    strip_height = strip_width * x_0.shape[1] / (len(times) * (x_0.shape[2] + gap))
    height = 0.25 + len(processes) * (strip_height + 0.08)
    with style.house_style():
        figure = style.sheet(height)
        figure.set_layout_engine("none")
        ends = []
        for row, process in enumerate(processes):
            built = registry.noise_process.build(process.name, steps, **process.kwargs)
            alpha_bar = np.asarray(built, dtype=np.float64)
            ends.append(f"{process} keeps {100 * alpha_bar[times[len(times) // 2]] ** 0.5:.0f} %")
            noised = [np.sqrt(alpha_bar[t]) * x_0 + np.sqrt(max(0.0, 1 - alpha_bar[t])) * eps for t in times]
            strip = tile(np.stack([_quantised(x_t) for x_t in noised]), columns=len(times), gap=gap)
            bottom = height - 0.25 - (row + 1) * strip_height - row * 0.08
            axes = figure.add_axes(
                (margin / style.WIDTH, bottom / height, strip_width / style.WIDTH, strip_height / height)
            )
            axes.imshow(strip, interpolation="nearest", aspect="auto")
            axes.set_yticks([(strip.shape[0] - 1) / 2], [names[row]])
            centres = (np.arange(len(times)) + 0.5) * strip.shape[1] / len(times) - 0.5
            axes.set_xticks(centres, [f"t = {t}" for t in times] if row == 0 else [""] * len(times))
            axes.tick_params(length=0, labelcolor=style.INK, labeltop=row == 0, labelbottom=False)
            axes.spines[:].set_visible(False)
        middle = times[len(times) // 2]
        alt = f"One real image noised from t = 0 to {steps}. Of the signal at t = {middle}, {', '.join(ends)}."
        return Drawn("noising", style.png(figure), alt)


def tile(images: Pixels, columns: int = COLUMNS, gap: int = 0) -> Pixels:
    """(N, C, H, W) → one (rows * H, columns * (W + gap), 3) picture, white where images run out."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    picture = np.full((rows * height, columns * (width + gap), 3), 255, dtype=np.uint8)
    for place, image in enumerate(images):
        top, left = (place // columns) * height, (place % columns) * (width + gap) + gap // 2
        picture[top : top + height, left : left + width] = _rgb(image)
    return picture


def _rgb(image: Pixels) -> Pixels:
    """(C, H, W) → (H, W, 3), grey where C is 1."""
    planes = image if image.shape[0] == 3 else np.repeat(image[:1], 3, axis=0)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _quantised(x: npt.NDArray[np.float64]) -> Pixels:
    return np.clip((x + 1) * 127.5, 0, 255).round().astype(np.uint8)


def _side_by_side(panels: Sequence[tuple[str, Pixels]]) -> bytes:
    """Pictures of one height in a row, with their titles above, in whole pixels throughout."""
    tall = max(picture.shape[0] for _, picture in panels)
    grown = [(name, _enlarge(picture, max(1, round(tall / picture.shape[0])))) for name, picture in panels]
    natural = sum(picture.shape[1] for _, picture in grown)
    wanted = style.WIDTH * style.DPI
    factor = max(1, round(wanted / natural))
    grown = [(name, _enlarge(picture, factor)) for name, picture in grown]
    gap, head = 24, 46
    height = head + max(picture.shape[0] for _, picture in grown)
    width = sum(picture.shape[1] for _, picture in grown) + gap * (len(grown) - 1)
    with style.house_style():
        figure = style.sheet(height / style.DPI, width / style.DPI)
        figure.set_layout_engine("none")
        left = 0
        for name, picture in grown:
            figure.figimage(picture, left, height - head - picture.shape[0], origin="upper", resize=False)
            figure.text(left / width, 1 - 0.25 * head / height, name, ha="left", va="top", fontsize=10 * width / wanted)
            left += picture.shape[1] + gap
        return style.png(figure)


def _enlarge(picture: Pixels, factor: int) -> Pixels:
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)
