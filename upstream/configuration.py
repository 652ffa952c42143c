"""Configurations of downstream tasks: s3prl's own do not come with its package."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).with_name("configs")


def config_names() -> list[str]:
    """Names of all configurations."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def config_path(name: str) -> Path:
    """The file of a configuration.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in config_names():
        raise ValueError(f"unknown configuration {name!r}: one of {', '.join(config_names())}")
    return _FOLDER / f"{name}.yaml"
