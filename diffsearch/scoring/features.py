"""Feature extractors by name, and the distances between features: the only module that imports torch_fidelity.

An extractor reads uint8 images, as they would be saved, and resizes them at most once, inside (Parmar et al. 2022,
"On Aliased Resizing"): scores then don't depend on who drew the images or on how they were kept.
"""

from __future__ import annotations

import functools
import hashlib
import socket
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from diffsearch import registry
from diffsearch.errors import MetricError
from diffsearch.files import replace_file
from diffsearch.scoring.passes import in_colour, one_pass

_INCEPTION_BATCH = 50
_LAYERS = ["2048", "logits_unbiased"]  # logits without their bias are what torch-fidelity's inception score reads
_CONNECT_S = 3.0  # a machine without a network is told so within this time, not after a download's time-outs


@runtime_checkable
class Extractor(Protocol):
    """Images → feature vectors, the same bits for the same images."""

    name: str
    content: str  # 16 hex over the weights: scores of different contents are never compared
    dim: int
    image_shape: tuple[int, int, int] | None  # the only (C, H, W) that it reads; None: any

    def extract(self, images: np.ndarray | Tensor) -> np.ndarray:
        """uint8 (N, C, H, W) → float32 (N, dim)."""
        ...


@runtime_checkable
class Classifier(Extractor, Protocol):
    """An extractor that is a classifier too; it is registered with the trait `classes`."""

    classes: int

    def classify(self, images: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (N, C, H, W) → features, float32 (N, dim), and class logits, float32 (N, classes), of one pass."""
        ...


@dataclass(frozen=True, eq=False)
class Outputs:
    """All that an extractor makes of images.

    Args:
        features: float32 (N, dim).
        logits: float32 (N, classes); None where it is no classifier.
    """

    features: np.ndarray
    logits: np.ndarray | None = None


def outputs(extractor: Extractor, images: np.ndarray | Tensor) -> Outputs:
    """What an extractor makes of uint8 images (N, C, H, W), of one pass through its network."""
    if isinstance(extractor, Classifier):
        return Outputs(*extractor.classify(images))
    return Outputs(extractor.extract(images))


@registry.extractor.register("inception", dim=2048, image_shape=None, classes=1008)
def inception(*, weights: str | None = None) -> Classifier:
    """torch-fidelity's Inception v3 of 2015 (the one that published FID, KID and IS use), its 2,048 pooled features.

    Args:
        weights: its weights file; None: torch's cache, else a download of 91 MB.
    """
    return InceptionExtractor(inception_weights(weights))


class InceptionExtractor:
    """Grey images are repeated to three channels; any size is resized to 299×299 as TensorFlow 1 did.

    Runs on the GPU where there is one: there features agree with the CPU's to fp32 rounding, not to the bit.
    """

    name = "inception"
    dim = 2048
    classes = 1008  # outputs of its last layer; 1,000 of them are ImageNet's
    image_shape: tuple[int, int, int] | None = None

    def __init__(self, path: Path) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            self._net = FeatureExtractorInceptionV3("inception", _LAYERS, feature_extractor_weights_path=str(path))
        except Exception as error:
            raise MetricError(f"{path} does not hold torch-fidelity's Inception weights: {error}") from error
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._net.to(self._device)
        self.content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    def extract(self, images: np.ndarray | Tensor) -> np.ndarray:
        """uint8 (N, 1 or 3, H, W) → float32 (N, 2048)."""
        return self.classify(images)[0]

    def classify(self, images: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (N, 1 or 3, H, W) → features, float32 (N, 2048), and logits, float32 (N, 1008)."""
        features, logits = one_pass(lambda x: self._net(in_colour(x)), images, _INCEPTION_BATCH, self._device)
        return features, logits


def inception_weights(weights: str | None = None, *, download: bool = True) -> Path:
    """Where Inception's weights lie: the file named, torch's cache, or a download into that cache.

    Raises:
        MetricError: absent, and neither at hand nor to be had.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    if weights is not None:
        given = Path(weights).expanduser()
        if not given.is_file():
            raise MetricError(f"inception: no weights file at {given}; it is to be had from {URL_INCEPTION_V3}")
        return given
    path = _hub_path(URL_INCEPTION_V3)
    if path.is_file():
        return path
    remedy = (
        f"fid, kid and is need Inception's weights, which aren't on this machine: get {URL_INCEPTION_V3} "
        f"and put it at {path}; `diffsearch features install FILE` does that for a file that you have"
    )
    if not download or not _reachable(URL_INCEPTION_V3):
        raise MetricError(remedy)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(
            URL_INCEPTION_V3, str(path), hash_prefix=path.stem.rsplit("-", 1)[-1], progress=False
        )
    except (OSError, RuntimeError) as error:
        raise MetricError(f"{remedy} (the download failed: {error})") from error
    return path


def install_inception(source: Path) -> Path:
    """Put a weights file that the user has into torch's cache, where it is found from then on.

    Raises:
        MetricError: absent, or not the file: its sha256 doesn't begin as its published name says.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    file_name = URL_INCEPTION_V3.rsplit("/", 1)[-1]
    try:
        content = source.read_bytes()
    except OSError as error:
        raise MetricError(f"inception: {source} can't be read: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(Path(file_name).stem.rsplit("-", 1)[-1]):
        raise MetricError(f"inception: {source} isn't {file_name}: its sha256 begins with {digest[:8]}")
    path = _hub_path(URL_INCEPTION_V3)
    replace_file(path, content)
    return path


def _hub_path(url: str) -> Path:
    """Where torch.hub keeps the weights of that address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _reachable(url: str) -> bool:
    host = urllib.parse.urlparse(url).hostname or ""
    try:
        socket.create_connection((host, 443), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


def extractor(name: str) -> Extractor:
    """The extractor of that name with its default options, loaded once a process.

    Raises:
        MetricError: its weights are not to be had.
        DiffsearchError: unknown name.
    """
    return _extractor(name, registry.extractor.member(name).origin)


@functools.lru_cache(maxsize=4)
def _extractor(name: str, origin: str | None) -> Extractor:
    built: Extractor = registry.extractor.build(name)
    return built


# --- distances, as torch-fidelity has them --------------------------------------------------------------------------


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, d) → mean (d,) and covariance (d, d) with N − 1 in the denominator, both float64."""
    exact = features.astype(np.float64)
    return exact.mean(axis=0), np.atleast_2d(np.cov(exact, rowvar=False))  # one feature alone gives a number


def frechet_distance(mean: np.ndarray, cov: np.ndarray, reference_mean: np.ndarray, reference_cov: np.ndarray) -> float:
    """|m − m'|² + tr(C + C' − 2 (C C')^½) of two Gaussians (Heusel et al. 2017, eq. 6), in float64.

    torch-fidelity's to the bit, without importing it: that takes seconds, and most studies ask for no more of it.

    Raises:
        MetricError: a NaN or an infinity in the statistics.
    """
    try:
        eigenvalues = np.linalg.eigvals(cov.dot(reference_cov))
    except np.linalg.LinAlgError as error:
        raise MetricError(f"the Fréchet distance can't be computed: {error}; NaNs in the features?") from error
    apart = mean - reference_mean
    shared = np.sqrt(eigenvalues.astype(np.complex128)).real.sum()
    return float(apart.dot(apart) + np.trace(cov) + np.trace(reference_cov) - 2 * shared)


class _Cube:
    """The exponent 3 as two products: numpy's general power alone takes longer than all the rest."""

    __array_ufunc__ = None  # makes an array on the left hand the operation to `__rpow__`

    def __rpow__(self, base: np.ndarray) -> np.ndarray:
        cube: np.ndarray = base * base * base
        return cube


def kernel_distance(
    features: np.ndarray, reference: np.ndarray, *, subset_size: int, subsets: int = 25, seed: int = 2020
) -> tuple[float, float]:
    """Squared maximum mean discrepancy under the kernel (x·y/d + 1)³ (Bińkowski et al. 2018): mean, std over subsets.

    Args:
        features, reference: float32 (N, d) and (M, d).
        subset_size: images drawn without replacement from each side for one estimate; at most min(N, M).
        subsets: estimates; their standard deviation is the second result. torch-fidelity draws 100: with 25, in a
            quarter of the time, the mean's random error is a fifth of that deviation instead of a tenth.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    found = kid_features_to_metric(
        torch.from_numpy(np.ascontiguousarray(features)),
        torch.from_numpy(np.ascontiguousarray(reference)),
        kid_subsets=subsets,
        kid_subset_size=subset_size,
        kid_kernel_poly_degree=_Cube(),
        rng_seed=seed,
        verbose=False,
    )
    return float(found[KEY_METRIC_KID_MEAN]), float(found[KEY_METRIC_KID_STD])


def precision_recall(features: np.ndarray, reference: np.ndarray, *, neighbours: int = 3) -> tuple[float, float]:
    """Kynkäänniemi et al. 2019: shares of either set that lie among the other's.

    A point lies among a set if it is nearer to one of its points than that one's k-th neighbour within the set.

    Args:
        features, reference: float32 (N, d) of drawn images and (M, d) of real ones; more than `neighbours` of each.
        neighbours: k.
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    found = prc_features_to_metric(
        torch.from_numpy(np.ascontiguousarray(features)),
        torch.from_numpy(np.ascontiguousarray(reference)),
        prc_neighborhood=neighbours,
        save_cpu_ram=True,
        verbose=False,
    )
    return float(found[KEY_METRIC_PRECISION]), float(found[KEY_METRIC_RECALL])


def split_score(logits: np.ndarray, *, splits: int, seed: int = 2020) -> tuple[float, float]:
    """The inception score exp E KL(p(y|x) || p(y)) (Salimans et al. 2016) of each split: mean and standard deviation.

    Args:
        logits: float32 (N, classes), N ≥ splits.
        splits: equal parts of the images, which are shuffled first.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    found = isc_features_to_metric(torch.from_numpy(np.ascontiguousarray(logits)), splits, True, seed)
    return float(found[KEY_METRIC_ISC_MEAN]), float(found[KEY_METRIC_ISC_STD])
