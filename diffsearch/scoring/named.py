"""Files that are named after their content, `<stem>-<16 hex of its sha256>.safetensors`: weights and statistics."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import safetensors.torch
from torch import Tensor

from diffsearch.errors import MetricError
from diffsearch.files import replace_file

SHIPPED = Path(__file__).parent / "weights"
SUFFIX = ".safetensors"


def verified(path: Path) -> tuple[bytes, str]:
    """The bytes of a file, and the hash that its name promises.

    Raises:
        MetricError: absent, or changed since it was named.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MetricError(f"{path} can't be read: {error}; reinstall diffsearch or say which file to use") from error
    digest = hashlib.sha256(content).hexdigest()[:16]
    if not path.stem.endswith(f"-{digest}"):
        raise MetricError(f"{path} holds {digest}, which isn't what its name says; it was changed or cut short")
    return content, digest


def stem_of(path: Path) -> str:
    """The name without its hash: `mnist-5k` of `mnist-5k-0123456789abcdef.safetensors`."""
    return re.sub(r"-[0-9a-f]{16}$", "", path.stem)


def write_named(folder: Path, stem: str, tensors: dict[str, Tensor]) -> Path:
    """Write tensors into the folder under a name that holds their hash, atomically."""
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    path = folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}{SUFFIX}"
    replace_file(path, content)
    return path
