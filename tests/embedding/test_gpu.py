"""Workers that decode for a device, and batches on it, with the CPU as the device."""

import os
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from conftest import noise
from models import CrashingModel, LateCrashingModel, LockstepModel

import hear_tune
from hear_tune.audio import files
from hear_tune.cli import main
from hear_tune.common import devices
from hear_tune.embedding import compute, folder
from hear_tune.embedding.batching import in_batches
from hear_tune.embedding.compute import Computer
from hear_tune.embedding.framing import PER_CHOICES, Window
from hear_tune.networks import folded

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cpu_as_device(monkeypatch):
    """Treat the CPU like a GPU."""
    monkeypatch.setattr(folder, "works_by_itself", lambda _: True)
    monkeypatch.setattr(files, "GROUP_FILES", 4)


def on_cpu(monkeypatch, *arguments, **options):
    """Embed as on a machine without a GPU."""
    with monkeypatch.context() as patch:
        patch.setattr(folder, "works_by_itself", lambda _: False)
        return hear_tune.embed_folder(*arguments, **options)


def assert_same(path, expected):
    rows, others = pq.read_table(path), pq.read_table(expected)
    columns = ["path", "start", "end", "model"]
    assert rows.select(columns).equals(others.select(columns))
    vectors, wanted = (np.array(table["embedding"].to_pylist()) for table in (rows, others))
    np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("per", PER_CHOICES)
@pytest.mark.parametrize("workers", [1, 3])
def test_rows_and_reports_are_those_of_a_cpu(
    small_model, library, tmp_path, monkeypatch, per, workers
):
    (library / "05.wav").write_text("no sound")
    soundfile.write(library / "06.wav", np.zeros(30_000), 22_050)
    (library / "22.wav").write_bytes((library / "22.wav").read_bytes()[:-50_000])
    alone = on_cpu(monkeypatch, library, tmp_path / "alone.parquet", small_model, per)
    report = hear_tune.embed_folder(
        library, tmp_path / "o.parquet", small_model, per, workers=workers
    )
    assert report.failed == alone.failed
    assert report.silent == alone.silent == [str(library / "06.wav")]
    assert report.incomplete == alone.incomplete == [str(library / "22.wav")]
    assert report.seconds == pytest.approx(alone.seconds)
    assert_same(tmp_path / "o.parquet", tmp_path / "alone.parquet")


def test_batches_span_files_and_groups(small_model, library, tmp_path, monkeypatch):
    sizes = []
    launch = Computer._launch

    def measured(computer, pieces):
        sizes.append(len(pieces))
        return launch(computer, pieces)

    monkeypatch.setattr(Computer, "_launch", measured)
    report = hear_tune.embed_folder(library, tmp_path / "o.parquet", small_model, workers=2)
    assert report.embedded == 23
    assert sizes[:-1] == [8] * (len(sizes) - 1)


def test_decoding_and_embedding_overlap(small_model, tmp_path, monkeypatch):
    """Each clip is embedded while the next one is decoded, or the models wait in vain."""
    monkeypatch.setattr(compute, "BATCH_SAMPLES", 1)
    monkeypatch.setattr(files, "GROUP_FILES", 6)  # one decoder has them all
    for number in range(6):
        clip = np.full(20_000, number / 10)
        soundfile.write(tmp_path / f"{number}.wav", clip, 22_050, subtype="FLOAT")
    model = LockstepModel(small_model.encoder, tmp_path, clips=6)
    report = hear_tune.embed_folder(
        [tmp_path / f"{number}.wav" for number in range(6)],
        tmp_path / "o.parquet",
        model,
        workers=2,
    )
    assert report.embedded == 6


def test_interrupted_and_resumed(small_model, library, tmp_path, monkeypatch):
    on_cpu(monkeypatch, library, tmp_path / "whole.parquet", small_model, "window")
    out = tmp_path / "out.parquet"
    launch, batches = Computer._launch, []

    def interrupted(computer, pieces):
        batches.append(pieces)
        if len(batches) == 5:
            raise KeyboardInterrupt
        return launch(computer, pieces)

    with monkeypatch.context() as patch:
        patch.setattr(Computer, "_launch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hear_tune.embed_folder(library, out, small_model, "window", workers=2)
    assert not list(tmp_path.glob("out.parquet.parts/*.partial"))
    report = hear_tune.embed_folder(library, out, small_model, "window", workers=2)
    assert report.skipped >= 4
    assert report.embedded + report.skipped == 23
    assert_same(out, tmp_path / "whole.parquet")


@pytest.mark.parametrize("kind", [CrashingModel, LateCrashingModel])
def test_a_file_that_kills_its_decoder_is_named(small_model, library, tmp_path, monkeypatch, kind):
    """Whether or not some of it was decoded; no other file is lost, or embedded twice."""
    on_cpu(monkeypatch, library, tmp_path / "whole.parquet", small_model, "window")
    long = np.full(3_000_000, 0.1)
    long[:: len(long) - 1] = 0.25
    killers = ("02a.wav", "17a.wav")
    for name in killers:
        soundfile.write(library / name, long, 22_050)
    report = hear_tune.embed_folder(
        library, tmp_path / "o.parquet", kind(small_model.encoder), "window", workers=2
    )
    reason = "the process that decoded it was killed by SIGSEGV"
    assert report.failed == {str(library / name): reason for name in killers}
    assert report.embedded == 23
    assert_same(tmp_path / "o.parquet", tmp_path / "whole.parquet")


def test_a_part_that_cannot_be_written_ends_the_work(small_model, library, tmp_path, monkeypatch):
    monkeypatch.setattr(folder.EmbeddingOutput, "new_part", lambda *_: UnwritablePart())
    with pytest.raises(OSError, match="No space left"):
        hear_tune.embed_folder(library, tmp_path / "o.parquet", small_model, workers=2)


class UnwritablePart:
    def __enter__(self):
        raise OSError(28, "No space left on device")

    def __exit__(self, *_):
        pass


# --- Batches ---


def windows(count):
    return [
        (number, Window(0, 100, np.full(100, number, np.float32), 100)) for number in range(count)
    ]


def first_samples(audio):
    return audio[:, :1]


def vectors_of(computer, items):
    return [float(vectors[0]) for _, _, vectors in in_batches(computer, items)]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_halves_the_batch(error, monkeypatch, capsys):
    """Once, for all that follow; MPS and cuDNN raise plain errors."""
    monkeypatch.setattr(compute, "BATCH_SAMPLES", 800)
    tried = []

    def embed(audio):
        tried.append(len(audio))
        if len(audio) > 3:
            raise error("CUDA out of memory")
        return first_samples(audio)

    assert vectors_of(Computer(embed, CPU), windows(12)) == list(range(12))
    assert tried == [8, 4, 2, 2, 2, 2, 2, 2]
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "cpu has too little memory for batches of 4: going on with 2"
    assert len(said) == 2


def test_a_piece_that_does_not_fit_ends_the_work():
    def embed(_):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        vectors_of(Computer(embed, CPU), windows(3))


def test_other_errors_halve_nothing():
    def embed(audio):
        raise RuntimeError(f"{len(audio)} windows: wrong shape")

    with pytest.raises(RuntimeError, match="3 windows: wrong shape"):
        vectors_of(Computer(embed, CPU), windows(3))


class LoggingComputer:
    batch_samples, ahead = 100, 1

    def __init__(self):
        self.log = []

    def begin(self, pieces):
        self.log += [f"begin {piece[0]:.0f}" for piece in pieces]
        return lambda: self.read(pieces)

    def read(self, pieces):
        self.log += [f"read {piece[0]:.0f}" for piece in pieces]
        return [piece[:1] for piece in pieces]


def test_a_batch_is_begun_before_the_last_one_is_read():
    computer = LoggingComputer()
    assert vectors_of(computer, windows(3)) == [0, 1, 2]
    assert computer.log == ["begin 0", "begin 1", "read 0", "begin 2", "read 1", "read 2"]


def test_copies_and_computation_are_queued_in_order(monkeypatch):
    """With streams that only log."""
    log = []
    empty = torch.empty

    def stream(name):
        return SimpleNamespace(
            wait_stream=lambda other: log.append(f"{name} waits for {other.name}"),
            record_event=lambda: SimpleNamespace(synchronize=lambda: log.append("read")),
            name=name,
        )

    def embed(audio):
        log.append("embed")
        return first_samples(audio)

    computer = Computer(embed, CPU)
    computer._copying, computer.ahead = stream("copying"), 1
    computer.batch_samples = 200
    monkeypatch.setattr(torch, "empty", lambda *shape, **_: empty(*shape))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: log.append("record"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream("computing"))
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    assert vectors_of(computer, windows(4)) == [0, 1, 2, 3]
    launch = ["computing waits for copying", "record", "embed"]
    assert log == [*launch, *launch, "read", "read"]


# --- Devices and precision ---


def test_the_best_device_is_taken_and_named(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.find_device("auto") == CPU
    assert capsys.readouterr().err == "computing on the CPU: torch sees no GPU\n"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H200")
    monkeypatch.setattr(devices, "_try_device", torch.device)
    assert devices.find_device("auto") == torch.device("cuda")
    assert capsys.readouterr().err == "computing on cuda (H200)\n"
    assert devices.find_device("cpu") == CPU
    assert capsys.readouterr().err == ""


def test_float16_is_for_gpus(small_model, library, tmp_path, capsys):
    model = hear_tune.EmbeddingModel(small_model.encoder, precision="float16")
    with pytest.raises(ValueError, match="float16 is for GPUs: on a CPU, choose bfloat16"):
        hear_tune.embed_array(noise(60_000), 22_050, model)
    options = ["--variant", "tune-vanilla-small", "--device", "cpu", "--precision", "float16"]
    assert main(["embed", str(library), "-o", str(tmp_path / "o.parquet"), *options]) == 2
    assert "hear-tune: error: float16 is for GPUs" in capsys.readouterr().err
    assert not os.path.exists(tmp_path / "o.parquet.parts")


@pytest.mark.parametrize(("precision", "distance"), [("bfloat16", 3e-4), ("float16", 1e-5)])
def test_precisions_of_a_gpu(model, monkeypatch, precision, distance):
    """Rounded, but not far from float32, and named in the fingerprint."""
    audio = torch.from_numpy(noise(2 * 59_049).reshape(2, -1))
    exact = model.embed_windows(audio)
    rounded = hear_tune.EmbeddingModel(model.encoder, precision=precision)
    monkeypatch.setattr(folded.InferenceNetwork, "check", lambda *_: None)
    vectors = rounded.embed_windows(audio).float()
    assert not torch.equal(vectors, exact)
    assert torch.cosine_similarity(vectors, exact).min() > 1 - distance
    assert rounded.identity == f"{model.identity} {precision}"


def test_float32_is_not_rounded_to_tf32():
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        with devices.exact_float32(torch.device("cuda")):
            assert not any(backend.allow_tf32 for backend in backends)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before[1]
    assert [backend.allow_tf32 for backend in backends] == before


def test_weights_are_not_compared_for_each_batch(small_model, library, tmp_path, monkeypatch):
    """That would wait for the batches in progress; another job sees new weights."""
    compared = []
    are_equal = folded._are_equal
    monkeypatch.setattr(
        folded, "_are_equal", lambda *tensors: compared.append(1) or are_equal(*tensors)
    )
    for name in ("a", "b"):
        hear_tune.embed_folder(library, tmp_path / f"{name}.parquet", small_model)
    assert len(compared) <= 2
