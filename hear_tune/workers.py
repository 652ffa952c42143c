"""Processes that each decode and embed on one core, so that nothing large is handed between them.

A worker gets one group of files at a time, writes its part of the output, and tells what became of
each file. It may die of a file, as a decoder can; then that file is named, and another worker takes
over what is left of its group.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from .allocator import keep_freed_memory
from .devices import core_count
from .groups import Group, Outcome, embed_group

_READY = "ready"


class WorkerError(ChildProcessError):
    """A worker died, and not of a file."""


class Crew:
    """Workers, which wait for groups of files until they are dismissed; a context manager.

    Parameters
    ----------
    model
        A pickled `EmbeddingModel`.
    workers
        How many processes.
    threads
        Of each; by default the cores are shared among them.
    device
        Where each puts its model.
    """

    def __init__(
        self, model: bytes, workers: int, threads: int | None = None, device: str = "cpu"
    ) -> None:
        each = threads or max(1, core_count() // workers)
        self._workers = [_Worker(model, each, device) for _ in range(workers)]

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def embed(self, groups: Iterable[Group], note: Callable[[Outcome], None]) -> None:
        """Embed groups of files.

        Parameters
        ----------
        groups
            Taken one by one, when a worker is free.
        note
            Called with what became of each file, once per file.

        Raises
        ------
        WorkerError
            If a worker died outside of any file.
        OSError, StoreError
            If a worker could not write.
        """
        waiting = iter(groups)
        busy: set[_Worker] = set()
        for worker, group in zip(self._workers, islice(waiting, len(self._workers)), strict=False):
            worker.begin(group)
            busy.add(worker)
        while busy:
            ready = wait([worker.connection for worker in busy])
            for worker in [worker for worker in busy if worker.connection in ready]:
                if worker.listen(note):
                    continue
                next_group = next(waiting, None)
                if next_group is None:
                    busy.remove(worker)
                else:
                    worker.begin(next_group)


class _Worker:
    """A process as its parent sees it."""

    def __init__(self, model: bytes, threads: int, device: str) -> None:
        self._model = model
        self._arguments = threads, device
        self._start_method = _start_method(threads, device)
        self._start()

    def _start(self) -> None:
        context: Any = get_context(self._start_method)  # typeshed lacks its Process
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._ready = False

    def begin(self, group: Group) -> None:
        self._group = group
        self._noted: set[Path | str] = set()
        self._send()

    def _send(self) -> None:
        self._pending = list(self._group.paths)  # what this process has not read yet
        if self._ready:
            with suppress(ConnectionError):  # of a process that has died, as is heard next
                self.connection.send(self._group)

    def listen(self, note: Callable[[Outcome], None]) -> bool:
        """Take one message; returns whether the group goes on."""
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionError):
            self._take_over(note)
            return True
        if message == _READY:
            self._ready = True
            with suppress(ConnectionError):
                self.connection.send_bytes(self._model)
            self._send()
            return True
        if isinstance(message, BaseException):
            raise message
        if message is None:
            return False
        self._pending.remove(message.path)
        self._note(message, note)
        return True

    def _note(self, outcome: Outcome, note: Callable[[Outcome], None]) -> None:
        if outcome.path not in self._noted:
            self._noted.add(outcome.path)
            note(outcome)

    def _take_over(self, note: Callable[[Outcome], None]) -> None:
        """Start again without the file that the process died of."""
        self._process.join()
        how = _describe(self._process.exitcode)
        if not self._ready:
            raise WorkerError(
                f"a worker {how} before it began; a script that starts workers must keep its own "
                'work under if __name__ == "__main__":'
            )
        if not self._pending:
            raise WorkerError(f"a worker {how} while it embedded; try fewer workers")
        culprit = self._pending[0]
        self._note(Outcome(culprit, error=f"the process that decoded it {how}"), note)
        self._group = self._group.without(culprit)
        self.connection.close()
        self._start()
        self._send()

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _start_method(threads: int, device: str) -> str:
    """A forked process need not import torch anew, but has no use of its parent's threads.

    OpenMP waits for them without end, unless one thread is all it is to use.
    """
    can_fork = sys.platform == "linux" and threads == 1 and device == "cpu"
    return "fork" if can_fork else "spawn"


def _describe(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def _work(connection: Connection, threads: int, device: str) -> None:
    """What a worker does until it is stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops it
    end_with_parent()
    torch.set_num_threads(threads)
    keep_freed_memory()
    connection.send(_READY)  # a model is too long for the arguments of a process that may not start
    pickled = connection.recv_bytes()
    try:
        model = pickle.loads(pickled).to(device)
        while True:
            embed_group(connection.recv(), model, connection.send)
            connection.send(None)
    except Exception as error:
        connection.send(error)


def end_with_parent() -> None:
    """End this process when its parent does, even if that is killed.

    Else a worker would go on writing files that the same command, given again, writes too.
    """
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
