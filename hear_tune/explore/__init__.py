"""Explore embeddings: search by sound, maps of music, reports of runs."""

from ..common.errors import HearTuneError

PCA, UMAP = "pca", "umap"
PROJECTIONS = (UMAP, PCA)
MAX_POINTS = 50_000  # drawn smoothly by a page


class ExploreError(HearTuneError, ValueError):
    """A library, map or report cannot be searched or drawn as asked."""
