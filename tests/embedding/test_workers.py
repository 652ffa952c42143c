"""Workers: their number, and recovery from jobs that kill them."""

import functools
import multiprocessing
import os
import pickle
import signal
import threading
import time
from dataclasses import dataclass, replace

import pytest
import soundfile
from conftest import noise

from hear_tune.audio import files
from hear_tune.cli import main
from hear_tune.embedding import workers
from hear_tune.embedding.workers import Crew, Outcome, WorkerError
from hear_tune.pretrain import pcm_store as audio_store
from hear_tune.pretrain import tar_shards as shards
from hear_tune.pretrain.pcm_store import AudioStore, build_store

RATE = 22_050
KILLED = "was killed by SIGKILL"


@dataclass(frozen=True)
class Job:
    paths: tuple[str, ...]

    def without(self, path):
        return replace(self, paths=tuple(other for other in self.paths if other != path))


def say_who(job, note):
    for path in job.paths:
        note(Outcome(path, error=f"by {os.getpid()}"))


class OfTwoError(Exception):
    """Cannot be unpickled."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def fail(job, note):
    raise OfTwoError(job.paths, note)


def run(work, jobs, size):
    outcomes = []
    with Crew(pickle.dumps(work), size) as crew:
        crew.run(jobs, outcomes.append)
        children = len(multiprocessing.active_children())
    return outcomes, children


def test_no_more_workers_than_jobs():
    outcomes, children = run(say_who, [Job(("a", "b")), Job(("c",))], 64)
    assert sorted(outcome.path for outcome in outcomes) == ["a", "b", "c"]
    assert children <= 2
    assert run(say_who, [], 64) == ([], 0)


def test_no_more_workers_than_asked_for():
    outcomes, children = run(say_who, [Job((str(number),)) for number in range(9)], 2)
    assert len(outcomes) == 9
    assert children == 2


def die_within_a_message(job, note):
    """Be killed while sending more than a pipe holds."""
    for path in job.paths:
        if path == "bad":
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
            note(bytes(50_000_000))
        note(Outcome(path))


def test_a_worker_killed_within_a_message_costs_its_file_alone():
    outcomes = {}
    with Crew(pickle.dumps(die_within_a_message), 1) as crew:
        for _, message in crew.messages([workers.Job(("a", "bad", "b"))]):
            if isinstance(message, Outcome):
                outcomes[message.path] = message.error
                time.sleep(1)  # meanwhile the worker waits for room in the pipe
    assert outcomes.keys() == {"a", "bad", "b"}
    assert KILLED in outcomes["bad"]
    assert not outcomes["a"]
    assert not outcomes["b"]


def test_an_error_that_cannot_be_pickled_is_reported():
    with pytest.raises(WorkerError, match=r"a worker failed \(OfTwoError: \('a',\) and "):
        run(fail, [Job(("a",))], 1)


@pytest.fixture
def tracks(tmp_path, monkeypatch):
    """Nine tracks in groups of three; two of them crash their decoder."""
    monkeypatch.setattr(files, "GROUP_FILES", 3)
    folder = tmp_path / "tracks"
    folder.mkdir()
    for number in range(9):
        soundfile.write(folder / f"{number}.wav", noise(8_000, number), RATE)
    read = audio_store.read_blocks

    def crash(path, remarks):
        if path.name in ("4.wav", "6.wav"):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path, remarks)

    monkeypatch.setattr(audio_store, "read_blocks", crash)  # forked workers inherit it
    return folder


def test_a_store_of_files_that_crash_their_decoder(tracks, tmp_path, capsys):
    store = tmp_path / "store"
    for _ in range(2):  # the second run is like the first
        assert main(["store", str(tracks), "-o", str(store), "--workers", "2"]) == 1
        captured = capsys.readouterr()
        assert "7 tracks" in captured.out
        for name in ("4.wav", "6.wav"):
            assert f"failed: {tracks / name}: the process that decoded it {KILLED}" in captured.err
        assert "Traceback" not in captured.err
    names = [os.path.basename(track.path) for track in AudioStore(store).tracks]
    assert sorted(names) == [f"{number}.wav" for number in range(9) if number not in (4, 6)]
    assert AudioStore(store).verify() == []
    assert not list(store.glob("*.partial"))


def test_a_store_starts_no_more_workers_than_groups(tracks, tmp_path, monkeypatch):
    started = []
    start = workers._Worker._start

    def count(worker):
        started.append(worker)
        start(worker)

    monkeypatch.setattr(workers._Worker, "_start", count)
    build_store([tracks / f"{number}.wav" for number in range(4)], tmp_path / "store", workers=64)
    assert len(started) == 2


def crash_on_the_first(write, *arguments):
    if arguments[1][0].track.path.endswith("0.wav"):
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments)


def test_a_shard_whose_writer_is_killed_is_named(tracks, tmp_path, monkeypatch, capsys):
    build_store([tracks / f"{number}.wav" for number in range(4)], tmp_path / "store", workers=1)
    command = ["shards", str(tmp_path / "store"), "-o", str(tmp_path / "shards")]
    command += ["--clips-per-shard", "1", "--workers", "2"]
    with monkeypatch.context() as patch:
        crash = functools.partial(crash_on_the_first, shards._write_clips)
        patch.setattr(shards, "_write_clips", crash)
        assert main(command) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("hear-tune: error: ")
        assert f"not written (the process that wrote it {KILLED})" in error
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 3
    assert main(command) == 0
    assert not list((tmp_path / "shards").glob("*.partial"))
    assert len(shards.read_index(str(tmp_path / "shards" / "shards.json"))) == 4
