"""Vectors as points of a plane, and in clusters."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from ..embedding.batching import Vectors
from . import PCA, UMAP, ExploreError
from .similar import unit

Points = npt.NDArray[np.float32]

_UMAP_NEIGHBOURS = 15
_SEED = 0


def project(vectors: Vectors, method: str | None = None) -> tuple[Points, str]:
    """Lay vectors out in a plane by their cosines.

    Parameters
    ----------
    vectors
        (rows, size).
    method
        "umap", "pca", or None: UMAP if umap-learn is installed and there are enough rows.

    Returns
    -------
    points, description
        (rows, 2), and what they are, in words.

    Raises
    ------
    ExploreError
        If UMAP is asked for and cannot be had.
    """
    units = unit(vectors)
    hindrance = _umap_hindrance(len(vectors))
    if method == UMAP and hindrance:
        raise ExploreError(hindrance)
    if method == PCA or hindrance:
        points, share = _pca(units)
        note = f" ({hindrance})" if hindrance and method is None else ""
        return points, f"PCA, {100 * share:.0f} % of the variance{note}"
    return _umap(units), f"UMAP by cosine, {_UMAP_NEIGHBOURS} neighbours"


def _umap_hindrance(rows: int) -> str:
    if rows <= _UMAP_NEIGHBOURS:
        return f"UMAP needs more than {_UMAP_NEIGHBOURS} points"
    if find_spec("umap") is None:
        return 'UMAP needs umap-learn: pip install "hear-tune[map]"'
    return ""


def _pca(units: Vectors) -> tuple[Points, float]:
    """The two directions of most variance, and their share of it."""
    centred = units - units.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    points = np.zeros((len(units), 2), np.float32)
    first_two = axes[:, ::-1][:, :2]
    points[:, : first_two.shape[1]] = centred @ first_two
    total = values.clip(0).sum()
    return points, float(values[-2:].clip(0).sum() / total) if total > 0 else 1.0


def _umap(units: Vectors) -> Points:
    import umap

    # The distance of unit vectors orders them as their cosine does, and keeps more digits of it.
    reducer = umap.UMAP(
        n_neighbors=_UMAP_NEIGHBOURS, metric="euclidean", random_state=_SEED, n_jobs=1
    )
    points: Points = reducer.fit_transform(units).astype(np.float32)
    return points


def cluster(vectors: Vectors, count: int) -> list[int]:
    """K-means of unit vectors: each row's cluster, numbered from the largest.

    Raises
    ------
    ExploreError
        If scikit-learn is missing, or there are not that many rows.
    """
    if find_spec("sklearn") is None:
        raise ExploreError('clusters need scikit-learn: pip install "hear-tune[map]"')
    if not 1 <= count <= len(vectors):
        raise ExploreError(f"{len(vectors)} points cannot be in {count} clusters")
    from sklearn.cluster import KMeans

    found = KMeans(count, n_init=4, random_state=_SEED).fit_predict(unit(vectors))
    sizes = np.bincount(found, minlength=count)
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    return [int(rank[number]) for number in found]
