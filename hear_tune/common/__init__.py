"""Helpers that know nothing of audio or networks."""
