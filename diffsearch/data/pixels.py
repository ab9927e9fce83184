"""One picture as pixels: upright, opaque, cropped about its centre and scaled once with antialiasing."""

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
