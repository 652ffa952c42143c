"""From audio to embeddings: arrays, files, folders and streams."""
