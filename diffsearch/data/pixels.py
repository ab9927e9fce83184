"""Pictures as pixels: one upright, opaque, cropped about its centre and scaled once; many in one grid."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps


def to_pixels(opened: Image.Image, channels: int, size: tuple[int, int] | None) -> np.ndarray:
    """An opened image as uint8 (C, H, W).

    Args:
        channels: 1 for grey, 3 for RGB.
        size: (width, height) to crop and scale to; None keeps its own.
    """
    image = _opaque(ImageOps.exif_transpose(opened)).convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.BICUBIC)  # PIL's filters widen when shrinking
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels).transpose(2, 0, 1)


def _opaque(image: Image.Image) -> Image.Image:
    """8 bits a channel, transparent parts on white."""
    if image.mode.startswith("I"):  # 16 bits: PIL's own conversion would cut off at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """uint8 (N, 1 or 3, H, W) → one RGB picture (height, width, 3), `columns` a row, white where images run out.

    A pixel of white lies around each, but not around one alone.
    """
    count, _, height, width = images.shape
    gap, columns = int(count > 1), min(columns, count)
    rows = -(-count // columns)
    cells = np.full((rows * columns, 3, height + gap, width + gap), 255, dtype=np.uint8)
    cells[:count, :, gap:, gap:] = images
    lines = cells.reshape(rows, columns, *cells.shape[1:]).transpose(0, 3, 1, 4, 2)
    picture = lines.reshape(rows * (height + gap), columns * (width + gap), 3)
    return np.pad(picture, ((0, gap), (0, gap), (0, 0)), constant_values=255)
