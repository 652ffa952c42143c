"""Mutated input by the thousand: whatever a user's file holds, it is used or refused in words.

    python tests/fuzz.py audio --cases 5000 --seed 0

Good inputs are made, damaged at random and fed to hear-tune in a child process with bounds on time
and memory. Each must be used, or refused by the error that is meant for it, which names the file.
Anything else is an offence: another exception, a crash, a hang, much memory, a call that could run
code. Offending inputs are saved, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import collections
import io
import multiprocessing
import os
import pickletools
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import torch
from foreign import lightning_checkpoint
from lightning.pytorch import Trainer
from safetensors.torch import save
from tqdm import tqdm

import hear_tune
from hear_tune.cli import EXIT_ERROR, EXIT_FAILED, main
from hear_tune.datasets.labelled import load as load_labelled
from hear_tune.datasets.task import TaskError
from hear_tune.embedding.batching import ClipEmbeddings
from hear_tune.embedding.library import read_library
from hear_tune.embedding.output import EmbeddingOutput
from hear_tune.embedding.rows import StoreError
from hear_tune.explore.report import write_report
from hear_tune.pretrain import tar_shards as shards
from hear_tune.pretrain.pairs import PairDataset, Share
from hear_tune.pretrain.pcm_store import AudioStore, AudioStoreError, build_store
from hear_tune.pretrain.tar_shards import ShardError, write_shards
from hear_tune.probe import results

SECONDS = 30.0  # that a case may take
MEMORY_BYTES = 400 << 20  # that it may take beyond what the child has
SPACE_BYTES = 4 << 30  # of addresses, lest the machine suffer from one that takes more
RATE = 22_050

Tree = dict[str, bytes]  # content by path in the folder of a case

# --- Damage ---

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
_WORDS = (
    *("0", "-1", "1e999", "NaN", "2147483648", "9" * 25, "0.5", "null", "true", '""', '"x"', "[]"),
    *(
        "{}",
        "[[[[]]]]",
        '"\\u0000"',
        '"/dev/zero"',
        '"../x"',
        '"' + "a" * 300 + '"',
        "\ufffd",
        "\n",
    ),
)
_WORD = re.compile(r'-?\d+(?:\.\d+)?|"[^"\n]*"|\b[A-Za-z_]+\b')


def _position(rng: random.Random, data: bytes) -> int:
    """A place in a file; headers are hit more often than what follows them."""
    end = min(len(data), 200) if rng.random() < 0.7 else len(data)
    return rng.randrange(end + 1)


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        changed[_position(rng, data) % len(data)] = rng.randrange(256)
    return bytes(changed)


def _set_extreme(rng: random.Random, data: bytes) -> bytes:
    width = rng.choice((1, 2, 4, 8))
    number = (rng.choice(_NUMBERS) % 256**width).to_bytes(width, rng.choice(("little", "big")))
    start = _position(rng, data)
    return data[:start] + number + data[start + width :]


def _cut_off(rng: random.Random, data: bytes) -> bytes:
    return data[: _position(rng, data)]


def _take_out(rng: random.Random, data: bytes) -> bytes:
    start = _position(rng, data)
    return data[:start] + data[start + rng.randint(1, 64) :]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start = _position(rng, data)
    return data[: start + rng.randint(1, 512)] + data[start:]


def _join(other: bytes, rng: random.Random, data: bytes) -> bytes:
    return data[: _position(rng, data)] + other[_position(rng, other) :]


def _replace_word(rng: random.Random, data: bytes) -> bytes:
    """Of a text; anything else stays as it is."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    words = list(_WORD.finditer(text))
    if not words:
        return data
    start, end = rng.choice(words).span()
    return (text[:start] + rng.choice(_WORDS) + text[end:]).encode()


_BINARY = (_flip, _flip, _set_extreme, _set_extreme, _cut_off, _take_out, _repeat)
_TEXT = (_replace_word,) * 6 + _BINARY


def damage(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A file with one to three changes, some of them with pieces of another."""
    kinds = (*(_TEXT if data.isascii() else _BINARY), partial(_join, other))
    for _ in range(rng.randint(1, 3)):
        data = rng.choice(kinds)(rng, data or b"\0")
    return data


def damage_checkpoint(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Also beneath what would hide the change: the length of a header, the checksums of a zip."""
    if rng.random() < 0.3:
        return damage(rng, data, other)
    if data[8:9] == b"{":
        end = 8 + int.from_bytes(data[:8], "little")
        header = _replace_word(rng, data[8:end])
        return struct.pack("<Q", len(header)) + header + data[end:]
    program = pickle_program(rng) if rng.random() < 0.5 else b""
    if not data.startswith(b"PK"):
        return program + data if rng.random() < 0.5 else data[:-1] + program
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                start = _position(rng, content)
                content = content[:start] + program + content[start:]
                content = content if program else damage(rng, content, content)
            new.writestr(name, content)
    return changed.getvalue()


_TEXT_ARGUMENTS = (b"1", b"-1", b"'a'", b"os system", b"torch _utils", b"builtins eval", b"x", b"")


def pickle_program(rng: random.Random) -> bytes:
    """Any opcodes in any order."""
    return b"".join(
        opcode.code.encode("latin-1") + _argument(rng, opcode)
        for opcode in rng.choices(pickletools.opcodes, k=rng.randint(1, 40))
    )


def _argument(rng: random.Random, opcode: pickletools.OpcodeInfo) -> bytes:
    if opcode.arg is None:
        return b""
    if opcode.arg.n >= 0:
        return rng.choice((bytes(opcode.arg.n), rng.randbytes(opcode.arg.n)))
    if opcode.arg.n == pickletools.UP_TO_NEWLINE:
        return b"".join(rng.choice(_TEXT_ARGUMENTS) + b"\n" for _ in opcode.arg.name.split("_"))
    width = int(opcode.arg.name[-1])  # the argument begins with its length
    content = rng.choice((b"os", b"system", b"eval", b"builtins", rng.randbytes(8)))
    length = rng.choice((len(content), len(content), 0, rng.choice(_NUMBERS) % 256**width))
    return length.to_bytes(width, "little") + content


# --- Good inputs, and what is done with them ---


@dataclass(frozen=True)
class Target:
    """Something that users feed to hear-tune.

    Attributes
    ----------
    make
        Writes good inputs into an empty folder, a folder each; what is in ``intact`` stays so.
    use
        Does with the folder of an input what a user would.
    refusals
        The errors that are meant for a bad one.
    damage
        Changes the content of one file, given that of another.
    calls_nothing
        Whether a call that could run code is an offence.
    """

    make: Callable[[Path], None]
    use: Callable[[Path], None]
    refusals: tuple[type[Exception], ...]
    damage: Callable[[random.Random, bytes, bytes], bytes] = damage
    calls_nothing: bool = False


def _noise(samples: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)


def _small_encoder() -> hear_tune.Encoder:
    torch.manual_seed(0)
    config = hear_tune.TuneConfig(2, contractive=2, expansive=2, tail=3, embedding_size=8)
    return hear_tune.build_encoder(config)


_COMMON_FORMATS = ("WAV", "FLAC", "OGG", "MP3", "AIFF")


def _make_audio(folder: Path) -> None:
    """In every format and coding that can be written; the common ones are there several times."""
    stereo = np.stack([_noise(3_000)] * 2, 1)
    for name in sorted(soundfile.available_formats().keys() - {"RAW"}):
        for coding in soundfile.available_subtypes(name):
            for channels in (1, 2):
                place = folder / f"{name}-{coding}-{channels}"
                place.mkdir()
                file = place / f"x.{name.lower()}"
                try:
                    soundfile.write(file, stereo[:, :channels], RATE, coding, format=name)
                    soundfile.read(file)
                except (soundfile.SoundFileError, TypeError):
                    shutil.rmtree(place)
                    continue
                for number in range(4 if name in _COMMON_FORMATS else 0):
                    shutil.copytree(place, f"{place}-{number}")

    for name, coding in (("m4a", "aac"), ("mka", "aac"), ("mov", "alac")):
        for number in range(4):
            place = folder / f"{name}-{coding}-{number}"
            place.mkdir()
            _encode(place / f"x.{name}", coding)


def _encode(path: Path, coding: str) -> None:
    """What libsndfile cannot write."""
    with av.open(path, "w") as container:
        stream = container.add_stream(coding, rate=RATE)
        stream.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(np.stack([_noise(30_000)] * 2), "fltp", "stereo")
        frame.sample_rate = RATE
        for converted in [*av.AudioResampler(stream.format, "stereo", RATE, 1024).resample(frame)]:
            container.mux(stream.encode(converted))
        container.mux(stream.encode())


def _use_audio(folder: Path) -> None:
    (file,) = folder.glob("x.*")  # beside its resource fork, in one format
    vectors = hear_tune.embed_file(file, hear_tune.EmbeddingModel(_small_encoder())).vectors
    assert vectors.shape == (1, 8), "not one embedding"
    assert np.isfinite(vectors).all(), "an embedding is not finite"


def _make_checkpoints(folder: Path) -> None:
    torch.manual_seed(0)
    encoder = hear_tune.build_encoder(hear_tune.TuneConfig(1, embedding_size=2))
    lightning = lightning_checkpoint(encoder, callbacks={"a": [1, 2.5, None, True, (3,)]})
    plain = collections.OrderedDict(lightning["state_dict"])
    for name in ("own", "bare", "lightning", "zip", "old"):
        (folder / name).mkdir()
    encoder.training_record = {"steps": 3, "crop_samples": 3**10}
    hear_tune.save_checkpoint(encoder, folder / "own/x.safetensors")
    (folder / "bare/x.safetensors").write_bytes(save(dict(encoder.state_dict())))
    torch.save(lightning, folder / "lightning/x.ckpt")
    torch.save(plain, folder / "zip/x.pt")
    torch.save(plain, folder / "old/x.pt", _use_new_zipfile_serialization=False)


def _use_checkpoint(folder: Path) -> None:
    (file,) = folder.iterdir()
    hear_tune.load_model(file)


_IDENTITY = {"model": "x", "per": "window", "layers": ["a"], "hop_samples": 9}


def _rows(count: int) -> ClipEmbeddings:
    start = np.arange(count) / 3
    return ClipEmbeddings(_noise(4 * count).reshape(count, 4), start, start + 1 / 3)


def _make_outputs(folder: Path) -> None:
    """An output, parts of one, and an output that is being extended."""
    for place in ("output", "parts", "both"):
        (folder / place).mkdir()
        for number in range(2 + (place == "both")):
            with EmbeddingOutput(folder / place / "x.parquet", _IDENTITY) as store:
                with store.new_part() as part:
                    part.add(f"{number}.wav", _rows(3))
                    part.add(f"{number}a.wav", _rows(2))
                    part.drop(["2a.wav"])
                if place == "output" or (place == "both" and number == 0):
                    store.finish()


def _use_outputs(folder: Path) -> None:
    output = folder / "x.parquet"
    if output.exists():
        read_library(output)
    with EmbeddingOutput(output, _IDENTITY) as store:
        with store.new_part() as part:
            part.add("new.wav", _rows(1))
        store.finish()
    assert "new.wav" in read_library(output).paths, "the new row is missing"


def _make_stores(folder: Path) -> None:
    (folder / "x").mkdir()
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", _noise(3_000), RATE)
    files = [folder / f"{number}.wav" for number in range(2)]
    for file in files:  # a shard each
        build_store([file], folder / "x", workers=1)
        file.unlink()
    (folder / "x/lock").unlink(missing_ok=True)


def _use_store(folder: Path) -> None:
    store = AudioStore(folder)
    store.verify()
    assert store.seconds >= 0
    pairs = PairDataset([store], 500, seed=0, shortest_samples=1)
    list(pairs.batches(Share(1), 0, 1))


def _make_shards(folder: Path) -> None:
    _make_stores(folder)
    write_shards([folder / "x"], folder / "shards", 0.05, clips_per_shard=3, workers=1)
    (folder / "shards/lock").unlink(missing_ok=True)
    shutil.rmtree(folder / "x")


def _use_shards(folder: Path) -> None:
    shards.RETRY_SECONDS = 0
    index = folder / "shards.json"
    source = shards.StreamedPairs(shards.read_index(str(index)), 500, 0, shortest_samples=1)
    source.check(Share(1))
    list(source.batches(Share(1), 0, 2))
    shards.index_shards([str(path) for path in folder.glob("*.tar")], folder / "again")


def _make_tables(folder: Path) -> None:
    tables = {
        "label": "path,label,split\na.wav,dog,train\nb.wav,cat,valid\nc.wav,dog,test\n",
        "labels": 'path,labels\na.wav,dog;cat\nb.wav,"cat;mouse"\nc.wav,\n',
        "numbers": "path,valence,arousal\na.wav,1.5,2\nb.wav,-3,4e2\nc.wav,0,1\n",
    }
    for name, text in tables.items():
        (folder / name).mkdir()
        (folder / name / "x.csv").write_text(text)


def _use_table(folder: Path) -> None:
    load_labelled(folder / "x.csv")


def _make_logs(folder: Path) -> None:
    log = folder / "run/logs/version_0"
    log.mkdir(parents=True)
    (log / "metrics.csv").write_text("epoch,step,train/loss\n0,0,2.5\n0,1,2.25\n1,2,2\n")
    (log / "config.yaml").write_text("data:\n  seed: 0\n")


def _use_logs(folder: Path) -> None:
    _command(["report", str(folder), "-o", str(folder / "report.html")])


def _make_results(folder: Path) -> None:
    for count, kind, metric in ((1, "multiclass", "accuracy"), (2, "multilabel", "roc_auc")):
        for number in range(count):
            score = {"mean": 0.5, "deviation": 0.1, "interval": [0.25, 0.75]}
            result = {
                "format": results.FORMAT,
                "task": "music",
                "kind": kind,
                "split": "folds",
                "classes": ["drum", "flute"],
                "model": "tune+",
                "identity": "tune+ sha256:0",
                "layers": [f"tail.{number}"],
                "embedding_size": 8,
                "protocol": "clmr-linear",
                "seeds": [0, 1],
                "scores": {metric: score},
                "per_class": {"drum": {"f1": 0.5}, "flute": {"f1": 0.25}},
                "confusion": [[3, 1], [0, 2]] if kind == "multiclass" else None,
            }
            results.save(result, folder / kind / f"{number}.json")


def _use_results(folder: Path) -> None:
    write_report([folder], folder / "report.html")


_CONFIG = """\
data:
  batch_size: 2
  crop_samples: 2187
  seed: 1
  workers: 0
  segment_seconds: null
model:
  variant: tune-vanilla-small
  temperature: 0.5
  average_decay: 0.9
  optimizer:
    class_path: torch.optim.Adam
    init_args:
      lr: 0.001
trainer:
  max_steps: 3
  precision: 32-true
  accelerator: cpu
probe:
  folder: null
checkpoint_every: 2
"""


def _make_configs(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a/x.yaml").write_text(_CONFIG)
    _make_stores(folder)
    (folder / "x").rename(folder / "a/intact")


def _use_config(folder: Path) -> None:
    """All but the training itself."""
    Trainer.fit = lambda *_, **__: None
    options = ["--data.audio", f'["{folder / "intact"}"]', "--output", str(folder / "run")]
    _command(["pretrain", "--config", str(folder / "x.yaml"), *options, "--trainer.devices=1"])


class RefusedError(Exception):
    """A command ended with an error in words."""


def _command(arguments: list[str]) -> None:
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            code = main(arguments)
    except SystemExit as error:
        code = error.code
    text = said.getvalue()
    assert "Traceback" not in text, text
    if code in (EXIT_ERROR, EXIT_FAILED):
        raise RefusedError(text)
    assert code == 0, f"exit code {code}"


TARGETS: dict[str, Target] = {
    "audio": Target(_make_audio, _use_audio, (hear_tune.AudioError,)),
    "checkpoints": Target(
        _make_checkpoints, _use_checkpoint, (hear_tune.CheckpointError,), damage_checkpoint, True
    ),
    "outputs": Target(_make_outputs, _use_outputs, (StoreError,)),
    "stores": Target(_make_stores, _use_store, (AudioStoreError,)),
    "shards": Target(_make_shards, _use_shards, (ShardError,)),
    "tables": Target(_make_tables, _use_table, (TaskError,)),
    "logs": Target(_make_logs, _use_logs, (RefusedError,)),
    "results": Target(_make_results, _use_results, (results.ResultError,)),
    "configs": Target(_make_configs, _use_config, (RefusedError,)),
}

# --- Cases ---


def read_tree(folder: Path) -> Tree:
    """All files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_tree(tree: Tree, folder: Path) -> None:
    """The files in a folder, which is made."""
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def good_inputs(target: Target) -> list[Tree]:
    """What the cases of a target are made of."""
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        target.make(Path(folder))
        return [read_tree(place) for place in sorted(Path(folder).iterdir()) if place.is_dir()]


def bad_input(name: str, trees: list[Tree], seed: int, number: int) -> Tree:
    """One of the good inputs, with one of its files damaged."""
    rng = random.Random(f"{name} {seed} {number}")
    tree, other = rng.choice(trees), rng.choice(trees)
    file = rng.choice([file for file in tree if not file.startswith("intact/")])
    return {**tree, file: TARGETS[name].damage(rng, tree[file], rng.choice(list(other.values())))}


# --- The child, which may die ---

_RUN_CODE = (
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "subprocess.",
    "pickle.find_class",
)
_DO_HARM = ("os.remove", "shutil.", "socket.", "webbrowser.")


def judge(target: Target, folder: Path) -> tuple[bool, str]:
    """Whether an input is dealt with as it should be, and how."""
    _forget_peak()
    before = _peak_bytes()
    try:
        target.use(folder)
        outcome = True, "used"
    except target.refusals as error:
        named = str(folder) in str(error) or isinstance(error, RefusedError)
        outcome = named, type(error).__name__ if named else f"no file is named: {error}"
    except BaseException as error:
        frame = error.__traceback__
        while frame and frame.tb_next:
            frame = frame.tb_next
        place = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else ""
        outcome = False, f"{type(error).__name__} at {place}: {' '.join(str(error).split())}"
    grown = _peak_bytes() - before
    return outcome if grown < MEMORY_BYTES else (False, f"{grown >> 20} MiB of memory")


def _forget_peak() -> None:
    """A process starts with the peak of the one that it was forked from."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) << 10


def _serve(connection: Connection) -> None:
    """Judge inputs until there are no more."""
    with open(os.devnull, "w") as nowhere:  # libsndfile, too, prints
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    torch.set_num_threads(1)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + SPACE_BYTES,) * 2)
    heard: list[str] = []
    listening = False

    def listen(event: str, _: object) -> None:
        if listening and event.startswith((*_RUN_CODE, *_DO_HARM)):
            heard.append(event)

    sys.addaudithook(listen)
    connection.send("ready")
    while task := connection.recv():
        target, folder = task
        listening = target.calls_nothing
        good, how = judge(target, folder)
        listening = False
        connection.send((good and not heard, f"called {heard}" if heard else how))
        heard.clear()


class Child:
    """A process that judges inputs; another takes its place when it is lost."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._connection, other = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(other,), daemon=False)
        self._process.start()
        other.close()
        self._connection.recv()  # that it is ready

    def judge(self, target: Target, folder: Path, seconds: float = SECONDS) -> tuple[bool, str]:
        """Whether an input is dealt with as it should be, and how."""
        self._connection.send((target, folder))
        try:
            if self._connection.poll(seconds):
                good, how = self._connection.recv()
                return bool(good), str(how)
            how = f"no end after {seconds:g} s"
        except (EOFError, ConnectionError):
            self._process.join()
            how = f"the process died ({self._process.exitcode})"
        self.close()
        self._start()
        return False, how

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def fuzz(child: Child, name: str, cases: range, seed: int) -> Iterator[tuple[int, bool, str, Tree]]:
    """Number, verdict, outcome and input of each case."""
    target = TARGETS[name]
    trees = good_inputs(target)
    with tempfile.TemporaryDirectory() as scratch:
        for tree in trees:  # a first use may import, compile and allocate as no later one does
            folder = Path(scratch, "good")
            write_tree(tree, folder)
            _, how = child.judge(target, folder)
            assert how == "used", f"a good input of {name} ({list(tree)}): {how}"
            shutil.rmtree(folder)
        for number in cases:
            folder = Path(scratch, str(number))
            tree = bad_input(name, trees, seed, number)
            write_tree(tree, folder)
            good, how = child.judge(target, folder)
            shutil.rmtree(folder, ignore_errors=True)
            yield number, good, how, tree


def command() -> int:
    """Run from the command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=Path("offences"), metavar="FOLDER")
    options = parser.parse_args()
    cases = range(options.first, options.first + options.cases)
    child, counts, offences, begin = Child(), Counter[str](), 0, time.monotonic()
    try:
        judged = fuzz(child, options.target, cases, options.seed)
        for number, good, how, tree in tqdm(judged, total=len(cases), disable=None):
            counts[how if good else "offences"] += 1
            if not good:
                offences += 1
                place = options.save / f"{options.target}-{options.seed}-{number}"
                write_tree(tree, place)
                print(f"{place}: {how[:300]}", flush=True)
    finally:
        child.close()
    listed = ", ".join(f"{how} {count}" for how, count in counts.most_common())
    print(f"{options.target}: {len(cases)} cases in {time.monotonic() - begin:.0f} s: {listed}")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(command())
