"""Processes that each do whole jobs on one core.

A worker gets one job at a time, such as a group of files to embed or decode, and reports the
outcome of each file. If a file kills it, as one can crash a decoder, that file is named and a new
worker takes over the rest of the job. Nothing large passes between processes, except from those
that decode for a GPU.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..audio.reading import SILENT, Remark, Remarks, missing_audio
from ..common.allocator import keep_freed_memory
from ..common.errors import HearTuneError
from ..common.ranges import at_least

_READY = "ready"


class WorkerError(HearTuneError, ChildProcessError):
    """A worker failed, and not because of a file."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of the work on one file.

    Attributes
    ----------
    path : Path or str
        As it was found.
    seconds : float
        Length of its audio.
    error : str or None
        Why it could not be read or written.
    remarks : tuple of Remark
    """

    path: Path | str
    seconds: float = 0.0
    error: str | None = None
    remarks: tuple[Remark, ...] = ()


Note = Callable[[Outcome], None]


@dataclass
class FileReport:
    """Outcome of the work on several files: which failed, and remarks on the others.

    Attributes
    ----------
    failed : dict of str to str
        For each file or folder that could not be read, the reason.
    silent : list of str
        Paths of files whose samples are all zero.
    remarks : dict of str to list of str
        Remarks on files in the output by path, such as "channels cancel: ...".
    incomplete : list of str
        Paths of files in the output that lack some of their audio; the remarks say how much.
    """

    failed: dict[str, str] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    incomplete: list[str] = field(default_factory=list)

    def note(self, outcome: Outcome) -> None:
        """Add a file that was worked on."""
        if outcome.error is None:
            self.keep(outcome.path, outcome.remarks)
        else:
            self.failed[os.fspath(outcome.path)] = outcome.error

    def keep(self, path: Path | str, remarks: Remarks) -> None:
        """Add a file in the output."""
        name = os.fspath(path)
        if remarks:
            self.remarks[name] = [remark.text for remark in remarks]
        if SILENT in remarks:
            self.silent.append(name)
        if missing_audio(remarks):
            self.incomplete.append(name)


@dataclass(frozen=True)
class Job:
    """Work for one worker; each kind adds what it needs.

    Attributes
    ----------
    paths : tuple of Path or str
        The files that it takes, in this order.
    """

    paths: tuple[Path | str, ...]

    def without(self, path: Path | str) -> Job:
        """Return the job without a file."""
        return replace(self, paths=tuple(other for other in self.paths if other != path))

    def taken_over(self, pending: Sequence[Path | str]) -> Job:
        """Return the job of a new worker after a file killed one.

        Parameters
        ----------
        pending : sequence of Path or str
            The files without an outcome, of which the first is the one that killed the worker.

        Returns
        -------
        Job
            By default all other files again, as their results were lost with the worker.
        """
        return self.without(pending[0])


AnyJob = TypeVar("AnyJob", bound=Job)


class Crew:
    """Workers, started as needed, which take jobs until the context ends.

    Parameters
    ----------
    work : bytes
        The pickled function that does a job: it takes the job and a function to call with the
        outcome of each file, in order, and with anything else that is to be sent here. Each worker
        unpickles it once.
    workers : int
        Largest number of processes.
    task : str
        What the work did with a file, for the error of one that killed its worker: "decoded".

    Raises
    ------
    ValueError
        If `workers` is below 1.
    """

    def __init__(self, work: bytes, workers: int, task: str = "decoded") -> None:
        at_least(1, workers=workers)
        self._work, self._size, self._task = work, workers, task
        self._workers: list[_Worker] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def run(self, jobs: Iterable[Job], note: Note) -> None:
        """Do jobs that send nothing but outcomes.

        Parameters
        ----------
        jobs : iterable of Job
            Taken one by one as workers become free.
        note : callable
            Called once with the outcome of each file.

        Raises
        ------
        WorkerError
            If a worker died, and not because of a file.
        Exception
            Whatever a job raises, such as an `OSError` if it cannot write.
        """
        for _, message in self.messages(jobs):
            if message is not None:
                note(message)

    def messages(self, jobs: Iterable[AnyJob]) -> Iterator[tuple[AnyJob, Any]]:
        """Do jobs, and yield what they send; parameters and errors are those of `run`.

        Workers wait while nothing is read from them.

        Yields
        ------
        job, message
            As given, and the `Outcome` of a file, anything else that the job sent, or None when it
            has ended. The messages of one job come in order, and one outcome of each file.
        """
        waiting = iter(jobs)
        idle, busy = list(self._workers), dict[_Worker, AnyJob]()
        while True:
            while len(busy) < self._size and (job := next(waiting, None)) is not None:
                worker = idle.pop() if idle else self._hire()
                worker.begin(job)
                busy[worker] = job
            if not busy:
                return
            ready = wait([worker.connection for worker in busy])
            for worker in [worker for worker in busy if worker.connection in ready]:
                job = busy[worker]
                for message in worker.listen():
                    yield job, message
                    if message is None:
                        del busy[worker]
                        idle.append(worker)

    def _hire(self) -> _Worker:
        worker = _Worker(self._work, self._task)
        self._workers.append(worker)
        return worker


class _Worker:
    """A worker process, seen from its parent."""

    def __init__(self, work: bytes, task: str) -> None:
        self._work = work
        self._task = task
        self._start()

    def _start(self) -> None:
        context: Any = get_context(_start_method())  # typeshed lacks its Process
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
        self._pending = list(self._job.paths)  # files without an outcome from this process
        if self._ready:
            with suppress(ConnectionError):  # a dead process is noticed next
                self.connection.send(self._job)

    def listen(self) -> Iterator[Any]:
        """Receive one message, and yield it if the job sent it; None if the job has ended."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):  # also if the process died within a message
            yield from self._take_over()
            return
        if message == _READY:
            self._ready = True
            with suppress(ConnectionError):
                self.connection.send_bytes(self._work)
            self._send()
        elif isinstance(message, BaseException):
            raise message
        elif isinstance(message, Outcome):
            self._pending.remove(message.path)
            yield from self._once(message)
        else:
            yield message

    def _once(self, outcome: Outcome) -> Iterator[Outcome]:
        """Yield the outcome of a file unless one is known."""
        if outcome.path not in self._noted:
            self._noted.add(outcome.path)
            yield outcome

    def _take_over(self) -> Iterator[Outcome]:
        """Start a new process for the job, without the file that killed this one."""
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
        self._job = self._job.taken_over(self._pending)
        self.connection.close()
        self._start()
        self._send()
        yield from self._once(Outcome(culprit, error=f"the process that {self._task} it {how}"))

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _start_method() -> str:
    """Fork where possible, to import torch only once; no worker uses a GPU."""
    return "fork" if sys.platform == "linux" else "spawn"


def _describe(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def _work(connection: Connection) -> None:
    """Do jobs until stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops it
    end_with_parent()
    torch.set_num_threads(1)
    keep_freed_memory()
    connection.send(_READY)
    pickled = connection.recv_bytes()  # too long for an argument of a process that may not start
    try:
        work = pickle.loads(pickled)
        while True:
            work(connection.recv(), connection.send)
            connection.send(None)
    except Exception as error:
        connection.send(_portable(error))


def _portable(error: Exception) -> Exception:
    """Return an error that can be pickled for the parent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"a worker failed ({type(error).__name__}: {error})")
    return error


def end_with_parent() -> None:
    """End this process with its parent, even if that is killed.

    Otherwise it could write the same files as a second run of the command.
    """
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
