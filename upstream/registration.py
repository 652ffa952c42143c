"""Register the upstreams and downstream problems with s3prl, which has no entry points."""

from __future__ import annotations


def register() -> None:
    """Add the upstreams to ``s3prl.hub``, for ``S3PRLUpstream("tune")`` and run_downstream.

    Call it before s3prl is imported, which fails by itself with torchaudio 2.9 or newer.

    Raises
    ------
    ImportError
        If s3prl or a dependency is not installed.
    """
    from .adaptations import adapt

    adapt()
    import s3prl.hub

    from . import hubconf

    for name in hubconf.__all__:
        setattr(s3prl.hub, name, getattr(hubconf, name))


def register_problems() -> None:
    """Add the downstream problems to ``s3prl.problem``, and the upstreams to the hub."""
    register()
    import s3prl.problem

    from . import problems

    for name in problems.__all__:
        setattr(s3prl.problem, name, getattr(problems, name))
