"""Music embeddings with the Tailed U-Net (TUNE)."""
