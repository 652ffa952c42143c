"""Configurations of downstream tasks, which s3prl's package lacks."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).with_name("configs")


def config_names() -> list[str]:
    """List the names of all configurations."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def config_path(name: str) -> Path:
    """Return the file of a configuration; raise a ValueError if the name is unknown."""
    if name not in config_names():
        raise ValueError(f"unknown configuration {name!r}: one of {', '.join(config_names())}")
    return _FOLDER / f"{name}.yaml"
