"""Helpers that depend on no other package of hear_tune."""
