"""Locking a folder of an object store, which has no locks, by an object that is created only once.

The object outlives a killed program. So each machine also holds a lock of its own, which does not,
and keeps the content of the object that it created last.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..common.files import InUseError, sole_use, write_whole

_LOCK = "lock"  # name of the object


@contextmanager
def sole_use_of_store(store: Any, root: str, doing: str) -> Iterator[None]:
    """Keep the programs of all machines but one out of a folder of a store.

    Parameters
    ----------
    store : fsspec file system
        If it lacks conditional creation (fsspec's mode "xb"), two programs that start at the same
        moment are not kept apart.
    root : str
        The folder.
    doing : str
        What the program does with it, for the others' error: "writing it".

    Raises
    ------
    InUseError
        If another program holds it, or was killed on another machine while it did.
    """
    url: str = store.unstrip_protocol(root)
    lock, here = f"{root}/{_LOCK}", _folder_here(url)
    created = here / "created"
    with sole_use(here, doing, of=url):
        before = created.read_bytes() if created.exists() else None
        if before is None or _content(store, lock) != before:  # else left by a killed program
            content = secrets.token_hex(16).encode()
            write_whole(created, content)
            if not _create(store, lock, content):
                raise InUseError(
                    f"{url}: another program is {doing}, or was killed on another machine; if none "
                    f"is, remove {url}/{_LOCK}"
                )
        try:
            yield
        finally:
            store.rm_file(lock)


def _folder_here(url: str) -> Path:
    """Return the folder where this machine keeps its own lock."""
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"hear-tune-{user}", name)


def _content(store: Any, path: str) -> bytes | None:
    store.invalidate_cache()
    try:
        content: bytes = store.cat_file(path)
    except FileNotFoundError:
        return None
    return content


def _create(store: Any, path: str, content: bytes) -> bool:
    """Write an object unless it exists; return whether it was written."""
    if _content(store, path) is not None:
        return False
    try:
        with store.open(path, "xb") as file:
            file.write(content)
    except (NotImplementedError, ValueError):  # the store has no such mode
        store.pipe_file(path, content)
    except OSError:
        if _content(store, path) is None:
            raise
    return _content(store, path) == content  # of several writers, the last one wins
