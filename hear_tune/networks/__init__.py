"""Encoders: configurations, networks, and what can be computed from them."""
