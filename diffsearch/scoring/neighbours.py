"""Which real image lies nearest to a drawn one: whether a network draws anew or from memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_CHUNK = 256  # rows at a time: their distances to 10,000 others take 20 MB


def nearest(features: np.ndarray, others: np.ndarray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The nearest of `others` to each row, by Euclidean distance; the first among equals.

    Args:
        features: (N, d).
        others: (M, d), at least one.

    Returns:
        Its index (N,) and its distance (N,).
    """
    mine, theirs = features.astype(np.float64), others.astype(np.float64)
    squares = np.square(theirs).sum(1)
    parts = [mine[start : start + _CHUNK] for start in range(0, len(mine), _CHUNK)]
    index = np.concatenate([np.argmin(squares - 2 * part @ theirs.T, axis=1) for part in parts]).astype(np.int64)
    return index, np.linalg.norm(mine - theirs[index], axis=1)  # from the difference: exact for copies, too


def memorised(drawn: np.ndarray, unseen: np.ndarray) -> float:
    """The share of drawn images nearer to a training image than half of the unseen real images are.

    About one half where drawn images are as new as unseen ones; near one where they are copies.

    Args:
        drawn, unseen: distances to the nearest training image, (N,) and (M,).
    """
    return float(np.mean(drawn < np.median(unseen)))
