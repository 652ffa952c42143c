import argparse
import collections
import json
import pathlib
import pickle
import struct
import sys
import types
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import hear_tune
from hear_tune import CheckpointError, TuneConfig, build_encoder, load_checkpoint, save_checkpoint
from hear_tune.checkpoints import sha256_of

SMALL = TuneConfig(2, contractive=2, expansive=2, tail=3, embedding_size=8)


@pytest.fixture
def encoder():
    torch.manual_seed(1)
    encoder = build_encoder(SMALL)
    encoder.training_record = {"epochs": 3, "data": "made up"}
    return encoder.eval()


def same(a, b):
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def test_a_file_alone_rebuilds_its_encoder(encoder, tmp_path):
    digest = save_checkpoint(encoder, tmp_path / "x.safetensors")
    loaded = load_checkpoint(tmp_path / "x.safetensors", sha256=digest)
    assert loaded.config == SMALL
    assert loaded.training_record == encoder.training_record
    assert loaded.sha256 == digest == sha256_of(tmp_path / "x.safetensors")
    assert same(encoder, loaded)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_metadata_is_complete(encoder, tmp_path):
    from safetensors import safe_open

    save_checkpoint(encoder, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["config"])["filters"] == 2
    assert metadata["variant"] == "custom"
    assert metadata["sample_rate"] == "22050"
    assert metadata["hear_tune_version"] == hear_tune.__version__
    assert json.loads(metadata["training"]) == encoder.training_record


def test_half_precision_weights_load_as_float32(encoder, tmp_path):
    save_checkpoint(encoder.half(), tmp_path / "x.safetensors")
    loaded = load_checkpoint(tmp_path / "x.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_hub_folders(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "hub")
    loaded = hear_tune.Encoder.from_pretrained(tmp_path / "hub")
    assert loaded.config == SMALL
    assert same(encoder, loaded)
    assert same(encoder, load_checkpoint(tmp_path / "hub"))
    assert hear_tune.load_model(tmp_path / "hub").scene_embedding_size == 8


def test_wrong_hash_is_refused(encoder, tmp_path):
    save_checkpoint(encoder, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"x\.safetensors: its sha256 is .* not 00"):
        load_checkpoint(tmp_path / "x.safetensors", sha256="00")


# --- Files of others ---


class AttributeDict(dict):
    """As Lightning keeps hyper-parameters."""

    __module__ = "pytorch_lightning.utilities.parsing"
    __qualname__ = "AttributeDict"


class LrSchedulerConfig:
    """A class of a library that is not there on loading."""

    __module__ = "some_library.schedulers"
    __qualname__ = "LrSchedulerConfig"

    def __init__(self):
        self.interval = "epoch"


@pytest.fixture
def absent_libraries(monkeypatch):
    """Modules that exist while a checkpoint is written, and not when it is read."""
    with monkeypatch.context() as patch:
        for cls in (AttributeDict, LrSchedulerConfig):
            parts = cls.__module__.split(".")
            for end in range(1, len(parts) + 1):
                name = ".".join(parts[:end])
                patch.setitem(sys.modules, name, sys.modules.get(name, types.ModuleType(name)))
            patch.setattr(sys.modules[cls.__module__], cls.__qualname__, cls, raising=False)
        yield


RENAMED = {
    "contractive.": lambda level: f"conv{level + 1}.layers.",
    "tail.": lambda level: f"convDown{level}.layers.",
}


def authors_state(encoder):
    """An encoder's state dict under the authors' names."""
    state = {}
    for name, tensor in encoder.state_dict().items():
        path, level, operation, kind = name.split(".")
        number = {"contractive": f"conv{int(level) + 1}", "expansive": f"conv{9 - int(level)}"}
        number["tail"] = f"convDown{level}"
        if operation == "upsample":
            state[f"transposedConv{9 - int(level)}.{kind}"] = tensor
        else:
            state[f"{number[path]}.layers.{'01'[operation == 'norm']}.{kind}"] = tensor
    return state


def lightning_checkpoint(encoder, **more):
    state = authors_state(encoder)
    return {
        "epoch": 9999,
        "global_step": 1_000_000,
        "pytorch-lightning_version": "1.8.0.post1",
        "state_dict": collections.OrderedDict(
            [(f"encoder.{name}", tensor) for name, tensor in state.items()]
            + [(f"model.encoder.{name}", tensor) for name, tensor in state.items()]
            + [("model.projector.0.weight", torch.zeros(8, 8))]
        ),
        **more,
    }


@pytest.fixture
def vanilla():
    torch.manual_seed(2)
    return build_encoder(TuneConfig(3, embedding_size=8)).eval()


@pytest.mark.usefixtures("absent_libraries")
def test_lightning_checkpoint_with_foreign_classes(vanilla, tmp_path, monkeypatch):
    hyper_parameters = AttributeDict(
        args=argparse.Namespace(lr=3e-4, path=pathlib.PurePosixPath("/data")),
        scheduler=LrSchedulerConfig(),
    )
    path = tmp_path / "tune.ckpt"
    content = lightning_checkpoint(vanilla, hyper_parameters=hyper_parameters, callbacks={})
    torch.save(content, path)
    for name in ("pytorch_lightning.utilities.parsing", "some_library.schedulers"):
        monkeypatch.delitem(sys.modules, name)
    loaded = load_checkpoint(path)
    assert loaded.config == vanilla.config
    assert same(vanilla, loaded)
    assert loaded.training_record == {"converted_from": "tune.ckpt"}


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_state_dicts_old_and_new(vanilla, tmp_path, zipped):
    state = {f"encoder.{name}": tensor for name, tensor in authors_state(vanilla).items()}
    state |= {"projector.0.weight": torch.zeros(3, 3), "encoder.fc.weight": torch.zeros(5, 8)}
    torch.save(state, tmp_path / "clmr.pt", _use_new_zipfile_serialization=zipped)
    assert same(vanilla, load_checkpoint(tmp_path / "clmr.pt"))


class Exploit:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def exploits(canary):
    import os
    import shutil
    import subprocess

    command = f"touch {canary}"
    write = f"open({str(canary)!r}, 'w')"
    return [
        Exploit(os.system, command),
        Exploit(eval, write),
        Exploit(exec, write),
        Exploit(open, str(canary), "w"),
        Exploit(subprocess.Popen, ["touch", str(canary)]),
        Exploit(subprocess.check_output, ["touch", str(canary)]),
        Exploit(shutil.copy, __file__, str(canary)),
        Exploit(os.popen, command),
        Exploit(__import__, "antigravity"),
        Exploit(pickle.loads, b"cos\nsystem\n."),
    ]


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_pickles_are_refused(vanilla, tmp_path, number, zipped):
    canary = tmp_path / "canary"
    content = lightning_checkpoint(vanilla, hyper_parameters=exploits(canary)[number])
    torch.save(content, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"evil\.ckpt: refused: it asks for"):
        load_checkpoint(tmp_path / "evil.ckpt")
    assert not canary.exists()


def test_code_of_installed_libraries_is_never_called(vanilla, tmp_path):
    """Functions outside the standard library are not refused, but do nothing."""
    canary = tmp_path / "canary"
    exploit = Exploit(torch.save, torch.zeros(1), str(canary))
    torch.save(lightning_checkpoint(vanilla, callbacks=exploit), tmp_path / "sly.ckpt")
    assert same(vanilla, load_checkpoint(tmp_path / "sly.ckpt"))
    assert not canary.exists()


def test_tensor_beyond_its_storage_is_refused(tmp_path):
    """A forged size must not make torch allocate what the file does not hold."""
    path = tmp_path / "forged.pt"
    torch.save({"conv1.layers.0.weight": torch.zeros(12_345)}, path)
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    forged = tmp_path / "forged2.pt"
    with zipfile.ZipFile(forged, "w") as target:
        for name, data in members.items():
            size, forged_size = (b"M" + struct.pack("<H", n) for n in (12_345, 65_000))
            if name.endswith("data.pkl"):
                assert data.count(size) == 2  # the storage's size, then the tensor's
                data = forged_size.join(data.rsplit(size, 1))
            target.writestr(name, data)
    with pytest.raises(CheckpointError, match="reaches outside its data"):
        load_checkpoint(forged)


def truncated(source, target, share):
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt"])
def test_truncated_files(vanilla, tmp_path, name, share):
    save_checkpoint(vanilla, tmp_path / "x.safetensors")
    torch.save(lightning_checkpoint(vanilla), tmp_path / "x.ckpt")
    truncated(tmp_path / name, tmp_path / f"cut-{name}", share)
    with pytest.raises(CheckpointError, match=f"cut-{name}: .*(cut|damaged)"):
        load_checkpoint(tmp_path / f"cut-{name}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"RIFF$\x00\x00\x00WAVEfmt ", r"not a checkpoint.*expected a hear-tune checkpoint"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (pickle.dumps({"a": 1}), "pickle"),
        (pickle.dumps([1, 2, 3]), "pickle"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    (tmp_path / "odd").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "odd")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "nothing.safetensors")


def test_tensors_of_another_model(tmp_path):
    torch.save(torch.nn.Linear(3, 3).state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"weight, bias.* not those of a Tailed U-Net"):
        load_checkpoint(tmp_path / "x.pt")


def rewritten(encoder, path, change_tensors=lambda t: t, **metadata):
    from safetensors import safe_open

    save_checkpoint(encoder, path)
    with safe_open(path, "pt") as file:
        kept = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(change_tensors(tensors), path, {**kept, **metadata})
    return path


def without(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def replaced(name, tensor):
    return lambda tensors: {**tensors, name: tensor}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("tail.3.conv.weight"), r"it lacks tail\.3\.conv\.weight"),
        (
            replaced("tail.3.conv.bias", torch.zeros(9)),
            r"tail\.3\.conv\.bias is \(9,\), not \(8,\)",
        ),
        (replaced("tail.9.conv.bias", torch.zeros(9)), r"unknown tensor tail\.9"),
        (replaced("tail.3.conv.bias", torch.full((8,), torch.nan)), "NaN or infinite weights"),
    ],
)
def test_tensors_that_do_not_fit(encoder, tmp_path, change, message):
    path = rewritten(encoder, tmp_path / "x.safetensors", change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"config": "{"}, "not JSON"),
        ({"config": "[]"}, "not an object"),
        ({"config": '{"architecture": "wavenet"}'}, "unknown architecture 'wavenet'"),
        ({"config": '{"architecture": "tune", "filtres": 3}'}, "filtres"),
        ({"config": '{"architecture": "tune", "filters": 3}'}, "do not fit"),
        ({"config": '{"architecture": "tune", "filters": 1000000000}'}, "too wide"),
        ({"sample_rate": "16000"}, "audio at 16000 Hz"),
    ],
)
def test_metadata_that_makes_no_sense(encoder, tmp_path, metadata, message):
    path = rewritten(encoder, tmp_path / "x.safetensors", **metadata)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_an_interrupted_write_leaves_the_old_file(encoder, tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    digest = save_checkpoint(encoder, path)

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(encoder, path)
    assert load_checkpoint(path, digest)
