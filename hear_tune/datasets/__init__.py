"""Labelled music: what a probe learns from and is scored on."""
