import argparse
import collections
import copy
import datetime
import decimal
import functools
import json
import pathlib
import pickle
import pickletools
import re
import struct
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from foreign import authors_state, lightning_checkpoint
from safetensors import safe_open
from safetensors.torch import save_file

import hear_tune
from hear_tune import CheckpointError, TuneConfig, build_encoder, load_checkpoint, save_checkpoint
from hear_tune.common.files import sha256_of
from hear_tune.networks.config import config_from_dict
from hear_tune.networks.projection import STATISTICS, Projection

THREE = list(STATISTICS)
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
    assert digest == sha256_of(tmp_path / "x.safetensors")
    assert same(encoder, loaded)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def read_metadata(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["hear_tune"])


def test_metadata_is_complete(encoder, tmp_path):
    save_checkpoint(encoder, tmp_path / "x.safetensors")
    metadata = read_metadata(tmp_path / "x.safetensors")
    assert metadata["config"]["filters"] == 2
    assert metadata["variant"] == "custom"
    assert metadata["sample_rate"] == 22_050
    assert metadata["hear_tune_version"] == hear_tune.__version__
    assert metadata["training"] == encoder.training_record


def test_the_same_encoder_makes_the_same_file(encoder, tmp_path):
    assert len({save_checkpoint(encoder, tmp_path / f"{i}.safetensors") for i in range(5)}) == 1


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
    config = json.loads((tmp_path / "hub/config.json").read_text())
    assert config_from_dict(config) == SMALL
    card = (tmp_path / "hub/README.md").read_text()
    assert "library_name: hear-tune" in card


def test_an_unpickled_encoder_can_be_saved_for_the_hub(encoder, tmp_path):
    (tmp_path / "encoder.pkl").write_bytes(pickle.dumps(encoder))
    program = (
        "import pickle, sys; folder = sys.argv[1]\n"
        "with open(folder + '/encoder.pkl', 'rb') as file: encoder = pickle.load(file)\n"
        "encoder.save_pretrained(folder + '/hub')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert same(encoder, load_checkpoint(tmp_path / "hub"))


@pytest.mark.parametrize(
    "projections",
    [
        [],
        {"a": None},
        {"a": {"layers": [], "size": 4, "stride": 9}},
        {"a": {"layers": ["contractive.9"], "size": 4, "stride": 9}},
        {"a": {"layers": ["contractive.1"], "size": -4, "stride": 3}},
        {"a": {"layers": ["contractive.1"], "size": 1e300, "stride": 3}},
        {"a": {"layers": ["contractive.1"], "size": 4, "stride": None}},
        {"a": {"layers": ["contractive.1"], "size": 4, "stride": 3**12}},
        {"a,b": {"layers": ["contractive.1"], "size": 4, "stride": 3}},
        {"a": {"layers": ["contractive.1"], "size": 4, "stride": 1, "statistics": THREE}},
        {"a": {"layers": ["contractive.1"], "size": 4, "stride": 3, "statistics": "yes"}},
        {"a": {"layers": ["contractive.1"], "size": 4, "stride": 756, "statistics": THREE}},
        {
            "a": {"layers": ["contractive.1"], "size": 4, "stride": 3},
            "b": {"layers": ["a"], "size": 4, "stride": 3},
        },
    ],
)
def test_impossible_projections_are_refused(encoder, tmp_path, projections):
    path = tmp_path / "x.safetensors"
    save_checkpoint(encoder, path)
    metadata = read_metadata(path) | {"projections": projections}
    metadata["training"] = {"crop_samples": 756}
    save_file(encoder.state_dict(), path, {"hear_tune": json.dumps(metadata)})
    with pytest.raises(CheckpointError, match="its metadata are damaged: projection"):
        load_checkpoint(path)


def test_wrong_hash_is_refused(encoder, tmp_path):
    save_checkpoint(encoder, tmp_path / "x.safetensors")
    for wrong in ("00", sha256_of(__file__)):
        with pytest.raises(CheckpointError, match=rf"x\.safetensors: its sha256 is .* not {wrong}"):
            load_checkpoint(tmp_path / "x.safetensors", sha256=wrong)


# --- Files of others ---


class AttributeDict(dict):
    """Lightning's container of hyper-parameters."""

    __module__ = "pytorch_lightning.utilities.parsing"
    __qualname__ = "AttributeDict"


class LrSchedulerConfig:
    """A class of a library that is not installed on loading."""

    __module__ = "some_library.schedulers"
    __qualname__ = "LrSchedulerConfig"

    def __init__(self):
        self.interval = "epoch"


@pytest.fixture
def absent_libraries(monkeypatch):
    """Modules that exist while a checkpoint is written, but not when it is read."""
    with monkeypatch.context() as patch:
        for cls in (AttributeDict, LrSchedulerConfig):
            parts = cls.__module__.split(".")
            for end in range(1, len(parts) + 1):
                name = ".".join(parts[:end])
                patch.setitem(sys.modules, name, sys.modules.get(name, types.ModuleType(name)))
            patch.setattr(sys.modules[cls.__module__], cls.__qualname__, cls, raising=False)
        yield


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
    with monkeypatch.context() as patch:
        for name in ("pytorch_lightning.utilities.parsing", "some_library.schedulers"):
            patch.delitem(sys.modules, name)
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
    """Functions outside the standard library are not refused, but never called."""
    canary = tmp_path / "canary"
    exploit = Exploit(torch.save, torch.zeros(1), str(canary))
    torch.save(lightning_checkpoint(vanilla, callbacks=exploit), tmp_path / "sly.ckpt")
    assert same(vanilla, load_checkpoint(tmp_path / "sly.ckpt"))
    assert not canary.exists()


HARMLESS = [
    np.float64(0.5),
    np.arange(5),
    np.random.default_rng(0),
    b"bytes",
    bytearray(b"bytes"),
    {1, 2},
    frozenset({1}),
    complex(1, 2),
    datetime.datetime(2022, 12, 4),
    decimal.Decimal(1),
    functools.partial(print, 1),
    re.compile("x"),
    collections.defaultdict(list, a=[1]),
    {(1, 2): 3, "a": {"b": None}},
    {"self": [10**40, -5, 2.5, True, False, None, "ä", ""]},
    torch.float32,
    torch.Size([1, 2]),
    torch.nn.Linear(2, 2),
    slice(1, 2),
]


@pytest.mark.parametrize("value", HARMLESS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("zipped", [True, False])
def test_any_harmless_value_beside_the_tensors(vanilla, tmp_path, value, zipped):
    content = lightning_checkpoint(vanilla, hyper_parameters={"value": value}, callbacks=value)
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    assert same(vanilla, load_checkpoint(tmp_path / "x.ckpt"))


def rezipped(source, target, change, compress=zipfile.ZIP_STORED):
    """A copy of a checkpoint with some of its entries changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compress) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


@pytest.mark.parametrize("size", [12_346, 65_000])
def test_tensor_beyond_its_storage_is_refused(tmp_path, size):
    """A forged size must not reach outside what the file holds."""
    torch.save({"conv1.layers.0.weight": torch.zeros(12_345)}, tmp_path / "x.pt")

    def forge(name, data):
        if not name.endswith("data.pkl"):
            return data
        honest, forged = (b"M" + struct.pack("<H", n) for n in (12_345, size))
        assert data.count(honest) == 2  # the storage's size, then the tensor's
        return forged.join(data.rsplit(honest, 1))

    with pytest.raises(CheckpointError, match=r"outside its data|more data than"):
        load_checkpoint(rezipped(tmp_path / "x.pt", tmp_path / "forged.pt", forge))


def test_tensors_that_repeat_their_data_without_end_are_refused(tmp_path):
    seed = torch.zeros(3)
    torch.save({"a": seed.expand(1_000_000, 3)}, tmp_path / "wide.pt")
    large = torch.zeros(100_000)
    torch.save({str(number): large for number in range(50)}, tmp_path / "many.pt")
    for name in ("wide.pt", "many.pt"):
        with pytest.raises(CheckpointError, match="far more data than the file holds"):
            load_checkpoint(tmp_path / name)


def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_checkpoint(tmp_path / "x.ckpt")


BOMBS = {
    "a memo index of billions": b"\x80\x02}r\x00\x00\x00\xff.",
    "a key that takes forever to hash": b"\x80\x02}(" + b")" + b"2\x86" * 200 + b"K\x01u.",
    "torch's own class, changed": b"\x80\x02}ctorch\nUntypedStorage\n}(X\x06\0\0\0nbytesNub0.",
    "a raw pointer as allocator": b"\x80\x04}ctorch\nUntypedStorage\n)}(X\x09\0\0\0allocator"
    b"\x8a\x08AAAAAAAAu\x920.",
    "a storage whose name takes forever to hash": b"\x80\x02}(U\x01a(U\x07storage"
    b"(U\x05torch)" + b"2\x86" * 200 + b"tU\x010tQu.",
    "a size that takes forever to multiply": b"\x80\x02}(U\x01actorch._utils\n_rebuild_tensor_v2\n"
    b"((U\x07storagectorch\nFloatStorage\nU\x010tQK\x00(\x8b"
    + struct.pack("<I", 1 << 16)
    + b"\x7f" * (1 << 16)
    + b"q\x00"
    + b"h\x00" * (1 << 18)
    + b"t)tRu.",
    "bytes that are not there": b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b".",
    "an empty stack": b"\x80\x02.",
    "a mark that is not there": b"\x80\x02t.",
    "an unknown memo": b"\x80\x02h\x05.",
}


def test_a_legacy_file_whose_list_of_data_takes_forever_to_hash(tmp_path):
    torch.save({"x": torch.zeros(3)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with (tmp_path / "x.pt").open("rb") as file:
        for _ in range(4):
            collections.deque(pickletools.genops(file), 0)  # to the pickle's end
        start = file.tell()
    keys = b"\x80\x02](" + b")" + b"2\x86" * 200 + b"e."
    (tmp_path / "bomb.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:start] + keys)
    with pytest.raises(CheckpointError, match="unknown kind"):
        load_checkpoint(tmp_path / "bomb.pt")


@pytest.mark.parametrize("bomb", BOMBS)
def test_programs_that_only_harm(tmp_path, bomb):
    torch.save({}, tmp_path / "x.pt")
    nbytes = torch.UntypedStorage.nbytes
    forged = rezipped(
        tmp_path / "x.pt",
        tmp_path / "bomb.pt",
        lambda name, data: BOMBS[bomb] if name.endswith("data.pkl") else data,
    )
    with pytest.raises(CheckpointError, match=r"bomb\.pt: .*(pickle|impossible shape)"):
        load_checkpoint(forged)
    assert torch.UntypedStorage.nbytes is nbytes


def test_compressed_entries_are_refused(vanilla, tmp_path):
    torch.save(lightning_checkpoint(vanilla), tmp_path / "x.ckpt")
    deflated = rezipped(
        tmp_path / "x.ckpt", tmp_path / "y.ckpt", lambda _, data: data, zipfile.ZIP_DEFLATED
    )
    with pytest.raises(CheckpointError, match="compressed"):
        load_checkpoint(deflated)


def test_old_batch_norms_without_a_counter(vanilla, tmp_path):
    state = {n: t for n, t in authors_state(vanilla).items() if "num_batches" not in n}
    torch.save(state, tmp_path / "x.pt")
    assert same(vanilla, load_checkpoint(tmp_path / "x.pt"))


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


def rewritten(encoder, path, change_tensors=lambda t: t, **changes):
    save_checkpoint(encoder, path)
    metadata = json.dumps({**read_metadata(path), **changes})
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(change_tensors(tensors), path, {"hear_tune": metadata})
    return path


def test_a_projection_of_an_earlier_version_is_of_means(encoder, tmp_path):
    projected = hear_tune.build_encoder(encoder.config).eval()
    projected.add_projection(Projection("old", projected.layers[:2], 5))
    described = {"old": {"layers": ["contractive.0", "contractive.1"], "size": 5, "stride": 3}}
    loaded = load_checkpoint(
        rewritten(projected, tmp_path / "x.safetensors", projections=described)
    )
    assert loaded.projection("old").scale is None
    assert same(projected, loaded)


def test_a_projection_of_other_statistics_is_refused(encoder, tmp_path):
    path = tmp_path / "x.safetensors"
    save_checkpoint(encoder, path)
    described = {"layers": ["contractive.1"], "size": 4, "stride": 9, "statistics": ["mean"]}
    metadata = read_metadata(path) | {"projections": {"a": described}}
    save_file(encoder.state_dict(), path, {"hear_tune": json.dumps(metadata)})
    with pytest.raises(CheckpointError, match=r"'a' is of other statistics than mean, .* whiten"):
        load_checkpoint(path)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_statistics_have_positive_scales(encoder, tmp_path, scale):
    projected = hear_tune.build_encoder(encoder.config).eval()
    projected.add_projection(Projection("a", projected.layers[:1], 4, 9, statistics=True))
    path = rewritten(projected, tmp_path / "x.safetensors", with_scale(scale))
    with pytest.raises(CheckpointError, match=r"not above 0 in projections\.a\.scale"):
        load_checkpoint(path)
    projected.projection("a").scale[2] = scale
    with pytest.raises(CheckpointError, match=r"not written: scales that are not above 0"):
        save_checkpoint(projected, tmp_path / "y.safetensors")


def with_scale(scale):
    return lambda tensors: tensors | {"projections.a.scale": torch.full((6,), scale)}


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
        (replaced("tail.3.conv.bias", torch.zeros(8, dtype=torch.int32)), r"is torch\.int32"),
        (replaced("tail.3.conv.bias", torch.zeros(8, dtype=torch.bool)), r"is torch\.bool"),
    ],
)
def test_tensors_that_do_not_fit(encoder, tmp_path, change, message):
    path = rewritten(encoder, tmp_path / "x.safetensors", change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": []}, "metadata are damaged"),
        ({"training": None}, "metadata are damaged"),
        ({"training": {"crop_samples": 10**12}}, "crops of 1000000000000 samples"),
        ({"training": {"crop_samples": "long"}}, "crops of 'long' samples"),
        ({"training": {"crop_samples": 100}}, "crops of 100 samples, no multiple of 27"),
        ({"training": {"embedding_layers": "tail.3"}}, "embedding layers 'tail.3'"),
        ({"training": {"embedding_layers": [["tail.3"]]}}, "embedding layers"),
        ({"training": {"embedding_layers": ["tail.77"]}}, "embedding layers"),
        ({"training": {"embedding_layers": []}}, "embedding layers"),
        ({"training": {"embedding_layers": ["tail.3", "tail.3"]}}, "embedding layers"),
        ({"config": {"architecture": "wavenet"}}, "unknown architecture 'wavenet'"),
        ({"config": {"architecture": "tune", "filtres": 3}}, "filtres"),
        ({"config": {"architecture": "tune", "filters": 3}}, "do not fit"),
        ({"config": {"architecture": "tune", "filters": 1_000_000_000}}, "too wide"),
        ({"sample_rate": 16_000}, "audio at 16000 Hz"),
    ],
)
def test_metadata_that_makes_no_sense(encoder, tmp_path, changes, message):
    path = rewritten(encoder, tmp_path / "x.safetensors", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "9" * 5000, "null", ""], ids=len)
def test_metadata_that_are_no_json(encoder, tmp_path, text):
    save_file(encoder.state_dict(), tmp_path / "x.safetensors", {"hear_tune": text})
    with pytest.raises(CheckpointError, match="metadata are damaged"):
        load_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_weights_are_never_written(encoder, tmp_path, value):
    path = tmp_path / "x.safetensors"
    digest = save_checkpoint(encoder, path)
    broken = copy.deepcopy(encoder)
    broken.tail["3"].conv.bias.data[1] = value
    with pytest.raises(CheckpointError, match=r"x\.safetensors: not written.*tail\.3\.conv\.bias"):
        save_checkpoint(broken, path)
    assert load_checkpoint(path, digest)
    assert list(tmp_path.iterdir()) == [path]


def test_a_zip_whose_entries_begin_before_the_file(vanilla, tmp_path):
    """Its parser seeks to a negative position, which the system refuses."""
    path = tmp_path / "x.ckpt"
    torch.save(lightning_checkpoint(vanilla), path)
    data = path.read_bytes()
    path.write_bytes(data[:100] + data[400:])
    with pytest.raises(CheckpointError, match=r"x\.ckpt: a damaged .*Invalid argument"):
        load_checkpoint(path)


def test_safetensors_of_others_need_no_metadata(vanilla, tmp_path):
    save_file(authors_state(vanilla), tmp_path / "x.safetensors")
    assert same(vanilla, load_checkpoint(tmp_path / "x.safetensors"))


def test_an_interrupted_write_leaves_the_old_file(encoder, tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    digest = save_checkpoint(encoder, path)

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(encoder, path)
    assert load_checkpoint(path, digest)


@pytest.mark.parametrize("beginning", [b" <", b"PK", b"\x80@", b"\x88<"])
def test_a_header_as_long_as_the_beginning_of_another_file(tmp_path, small_model, beginning):
    """A safetensors file begins with the length of its header, which may look like any format."""
    encoder, path = copy.deepcopy(small_model.encoder), tmp_path / "x.safetensors"
    wanted = int.from_bytes(beginning, "little")

    def header_bytes(note):
        encoder.training_record = {"note": "x" * note}
        hear_tune.save_checkpoint(encoder, path)
        return int.from_bytes(path.read_bytes()[:8], "little")

    note = wanted - header_bytes(0)
    while header_bytes(note) != wanted:
        note -= 1
    assert path.read_bytes().startswith(beginning)
    assert hear_tune.load_checkpoint(path).identity == encoder.identity


def test_weights_that_read_like_the_end_of_a_zip_file(tmp_path, small_model):
    """torch.save's old format ends in the weights."""
    encoder = copy.deepcopy(small_model.encoder)
    weight = encoder.contractive["0"].conv.weight.data.view(torch.int32)
    weight.flatten()[0] = int.from_bytes(b"PK\5\6", "little")
    path = tmp_path / "x.pt"
    torch.save(encoder.state_dict(), path, _use_new_zipfile_serialization=False)
    assert hear_tune.load_checkpoint(path).identity == encoder.identity
