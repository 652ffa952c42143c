"""Contrastive pre-training of the encoders."""
