"""Seeing and hearing embeddings: search by sound, maps of music, reports of runs."""
