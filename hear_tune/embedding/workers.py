"""Processes that each do whole jobs on one core, so that nothing large is handed between them.

A worker gets one job at a time, such as a group of files to embed or to decode, and tells what
became of each file. It may die of a file, as a decoder can; then that file is named, and another
worker takes over what is left of its job.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from ..audio.reading import Remark
from ..common.allocator import keep_freed_memory
from ..common.errors import HearTuneError

_READY = "ready"


class WorkerError(HearTuneError, ChildProcessError):
    """A worker failed, and not because of a file."""


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes
    ----------
    path
        As it was found.
    seconds
        Length of its audio.
    error
        Why it could not be read or written, if it could not.
    remarks
        What else there is to say of it.
    """

    path: Path | str
    seconds: float = 0.0
    error: str | None = None
    remarks: tuple[Remark, ...] = ()


Note = Callable[[Outcome], None]


@dataclass(frozen=True)
class Job:
    """Something for one worker to do; each kind adds what else it needs.

    Attributes
    ----------
    paths
        The files that it takes, in this order.
    """

    paths: tuple[Path | str, ...]

    def without(self, path: Path | str) -> Job:
        """The job that is left when a file is taken out."""
        return replace(self, paths=tuple(other for other in self.paths if other != path))


class Crew:
    """Workers, started as they are needed, which wait for jobs until they are dismissed.

    A context manager.

    Parameters
    ----------
    work
        The pickled function that does a job: it takes the job and a function to be called with what
        became of each file, in their order. A worker unpickles it once.
    workers
        How many processes at most; there are never more than jobs.
    device
        Where the work computes.
    task
        What is done with a file, in the past tense, for the reason of one that ended a worker:
        "decoded".

    Raises
    ------
    ValueError
        If there is to be no worker.
    """

    def __init__(
        self, work: bytes, workers: int, device: str = "cpu", task: str = "decoded"
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self._work, self._size, self._device, self._task = work, workers, device, task
        self._workers: list[_Worker] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def run(self, jobs: Iterable[Job], note: Note) -> None:
        """Do jobs.

        Parameters
        ----------
        jobs
            Taken one by one, when a worker is free.
        note
            Called with what became of each file, once per file.

        Raises
        ------
        WorkerError
            If a worker died outside of any file.
        Exception
            Whatever a job raises, such as an `OSError` if it cannot write.
        """
        waiting = iter(jobs)
        idle, busy = list(self._workers), set[_Worker]()
        while True:
            while len(busy) < self._size and (job := next(waiting, None)) is not None:
                worker = idle.pop() if idle else self._hire()
                worker.begin(job)
                busy.add(worker)
            if not busy:
                return
            ready = wait([worker.connection for worker in busy])
            for worker in [worker for worker in busy if worker.connection in ready]:
                if not worker.listen(note):
                    busy.remove(worker)
                    idle.append(worker)

    def _hire(self) -> _Worker:
        worker = _Worker(self._work, self._device, self._task)
        self._workers.append(worker)
        return worker


class _Worker:
    """A process as its parent sees it."""

    def __init__(self, work: bytes, device: str, task: str) -> None:
        self._work = work
        self._task = task
        self._start_method = _start_method(device)
        self._start()

    def _start(self) -> None:
        context: Any = get_context(self._start_method)  # typeshed lacks its Process
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._ready = False

    def begin(self, job: Job) -> None:
        self._job = job
        self._noted: set[Path | str] = set()
        self._send()

    def _send(self) -> None:
        self._pending = list(self._job.paths)  # what this process has not read yet
        if self._ready:
            with suppress(ConnectionError):  # of a process that has died, as is heard next
                self.connection.send(self._job)

    def listen(self, note: Note) -> bool:
        """Take one message; returns whether the job goes on."""
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionError):
            self._take_over(note)
            return True
        if message == _READY:
            self._ready = True
            with suppress(ConnectionError):
                self.connection.send_bytes(self._work)
            self._send()
            return True
        if isinstance(message, BaseException):
            raise message
        if message is None:
            return False
        self._pending.remove(message.path)
        self._note(message, note)
        return True

    def _note(self, outcome: Outcome, note: Note) -> None:
        if outcome.path not in self._noted:
            self._noted.add(outcome.path)
            note(outcome)

    def _take_over(self, note: Note) -> None:
        """Start again without the file that the process died of."""
        self._process.join()
        how = _describe(self._process.exitcode)
        if not self._ready:
            raise WorkerError(
                f"a worker {how} before it began; a script that starts workers must keep its own "
                'work under if __name__ == "__main__":'
            )
        if not self._pending:
            raise WorkerError(f"a worker {how}, not because of a file; try fewer workers")
        culprit = self._pending[0]
        self._note(Outcome(culprit, error=f"the process that {self._task} it {how}"), note)
        self._job = self._job.without(culprit)
        self.connection.close()
        self._start()
        self._send()

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _start_method(device: str) -> str:
    """A forked process need not import torch anew, but cannot use its parent's threads or GPU."""
    return "fork" if sys.platform == "linux" and device == "cpu" else "spawn"


def _describe(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def _work(connection: Connection) -> None:
    """What a worker does until it is stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops it
    end_with_parent()
    torch.set_num_threads(1)
    keep_freed_memory()
    connection.send(
        _READY
    )  # the work is too long to be an argument of a process that may not start
    pickled = connection.recv_bytes()
    try:
        work = pickle.loads(pickled)
        while True:
            work(connection.recv(), connection.send)
            connection.send(None)
    except Exception as error:
        connection.send(_portable(error))


def _portable(error: Exception) -> Exception:
    """An error as it is, if it can be handed on to the parent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"a worker failed ({type(error).__name__}: {error})")
    return error


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
