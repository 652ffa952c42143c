"""Checkpoints: the package's own, those of the TUNE and CLMR authors, and the Hugging Face hub."""
