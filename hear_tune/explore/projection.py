"""Project vectors to the plane, and cluster them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..common.ranges import one_of
from ..embedding.batching import Vectors
from . import PCA, PROJECTIONS, UMAP, ExploreError
from .similar import unit

Points = npt.NDArray[np.float32]

EXACT_POINTS = 50_000  # up to which neighbours are found by comparing all pairs, in a minute or two

_UMAP_NEIGHBOURS = 15  # with the point itself
_METRIC = "euclidean"  # orders unit vectors as cosine does, but with more precision
_SEED = 0


class Graph(NamedTuple):
    """The points nearest to each point, as UMAP takes them.

    Attributes
    ----------
    rows : ndarray (points, 15)
        The nearest first, with the point itself among them; -1 where fewer were found.
    distances : ndarray (points, 15)
        Euclidean, of unit vectors.
    search : object
        Of no use here, but UMAP asks for it.
    """

    rows: npt.NDArray[np.int32]
    distances: npt.NDArray[np.float32]
    search: Any

    def neighbours(self, count: int) -> npt.NDArray[np.intp]:
        """Return the nearest other points, at most 14 of each; itself where fewer were found."""
        own = np.arange(len(self.rows))[:, None]
        last = (self.rows == own) | (self.rows < 0)
        order = np.argsort(last, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(np.where(last, own, self.rows), order, axis=1)


def approximate_graph(vectors: Vectors) -> Graph | None:
    """Find the nearest points of many by UMAP's approximate search, in time hardly above linear.

    Returns
    -------
    Graph or None
        None if umap-learn is missing, or for up to `EXACT_POINTS`, all pairs of which can be
        compared.
    """
    if len(vectors) <= EXACT_POINTS or find_spec("umap") is None:
        return None
    from umap.umap_ import nearest_neighbors

    state = np.random.RandomState(_SEED)
    options = {"metric_kwds": {}, "angular": False, "random_state": state, "n_jobs": 1}
    return Graph(*nearest_neighbors(unit(vectors), _UMAP_NEIGHBOURS, _METRIC, **options))


def project(
    vectors: Vectors, method: str | None = None, graph: Graph | None = None
) -> tuple[Points, str]:
    """Project vectors to the plane by cosine similarity.

    Parameters
    ----------
    vectors : ndarray
        (rows, size).
    method : {"umap", "pca"}, optional
        By default UMAP if umap-learn is installed and there are enough rows, else PCA.
    graph : Graph, optional
        From `approximate_graph`, so that UMAP need not search again.

    Returns
    -------
    points : ndarray
        (rows, 2) float32.
    description : str
        The method, for people.

    Raises
    ------
    ExploreError
        If UMAP is requested but not available.
    ValueError
        If there is no such method.
    """
    check_method(method)
    units = unit(vectors)
    obstacle = _why_no_umap(len(vectors))
    if method == UMAP and obstacle:
        raise ExploreError(obstacle)
    if method == PCA or obstacle:
        points, share = _pca(units)
        note = f" ({obstacle})" if obstacle and method is None else ""
        return points, f"PCA, {100 * share:.0f} % of the variance{note}"
    return _umap(units, graph), f"UMAP by cosine, {_UMAP_NEIGHBOURS} neighbours"


def check_method(method: str | None) -> None:
    """Raise ValueError if there is no such method of projection."""
    if method is not None:
        one_of(PROJECTIONS, projection=method)


def _why_no_umap(rows: int) -> str:
    if rows <= _UMAP_NEIGHBOURS:
        return f"UMAP needs more than {_UMAP_NEIGHBOURS} points"
    if find_spec("umap") is None:
        return 'UMAP needs umap-learn: pip install "hear-tune[map]"'
    return ""


def _pca(units: Vectors) -> tuple[Points, float]:
    """Project to the two principal components; also return their share of the variance."""
    centred = units - units.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    points = np.zeros((len(units), 2), np.float32)
    first_two = axes[:, ::-1][:, :2]
    points[:, : first_two.shape[1]] = centred @ first_two
    total = values.clip(0).sum()
    return points, float(values[-2:].clip(0).sum() / total) if total > 0 else 1.0


def _umap(units: Vectors, graph: Graph | None) -> Points:
    import umap

    known = {} if graph is None else {"precomputed_knn": graph}
    reducer = umap.UMAP(
        n_neighbors=_UMAP_NEIGHBOURS, metric=_METRIC, random_state=_SEED, n_jobs=1, **known
    )
    points: Points = reducer.fit_transform(units).astype(np.float32)
    return points


def cluster(vectors: Vectors, count: int) -> list[int]:
    """Cluster unit vectors by k-means.

    Parameters
    ----------
    vectors : ndarray
        (rows, size).
    count : int
        Number of clusters.

    Returns
    -------
    list of int
        Cluster of each row, numbered from the largest.

    Raises
    ------
    ExploreError
        If scikit-learn is missing, or there are fewer rows than clusters.
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
