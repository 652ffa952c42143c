"""Seeing and hearing embeddings: search by sound, maps of music, reports of runs."""

PCA, UMAP = "pca", "umap"
PROJECTIONS = (UMAP, PCA)
MAX_POINTS = 50_000  # that a page draws smoothly
