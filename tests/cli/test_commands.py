import copy
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from io import BytesIO, TextIOWrapper
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from conftest import noise
from foreign import lightning_checkpoint

import hear_tune
from hear_tune.cli import main
from hear_tune.embedding import export


@pytest.fixture(autouse=True)
def quick_checkpoint(tmp_path, small_model):
    hear_tune.save_checkpoint(small_model.encoder, tmp_path / "small.safetensors")


def test_embed(music, tmp_path, capsys):
    out = tmp_path / "out.parquet"
    arguments = [
        "embed",
        str(music),
        "-o",
        str(out),
        "--model",
        str(tmp_path / "small.safetensors"),
    ]
    assert main([*arguments, "--per", "window", "--hop-ms", "1000", "--layers", "all"]) == 0
    assert "4 files embedded, 0 failed" in capsys.readouterr().out
    rows = pq.read_table(out).to_pydict()
    assert rows["path"].count(str(music / "a.wav")) == 2
    assert len(rows["embedding"][0]) == sum([2, 4, 8, 4, 2, 4, 8, 8])
    assert rows["model"][0].startswith("custom sha256:")


def test_embed_loads_no_library_that_it_can_do_without(music, tmp_path):
    """Arrow would load pandas, which takes a third of a second."""
    program = (
        "import sys; from hear_tune.cli import main; assert main(sys.argv[1:]) == 0; "
        "assert not {'pandas', 'lightning', 'scipy', 'sklearn'} & sys.modules.keys()"
    )
    arguments = [music, "-o", tmp_path / "o.parquet", "--workers", "1"]
    arguments += ["--model", tmp_path / "small.safetensors"]
    command = [sys.executable, "-c", program, "embed", *map(str, arguments)]
    subprocess.run(command, check=True)


def test_failures_are_listed_and_the_exit_code_says_so(music, tmp_path, capsys):
    (music / "bad\nname.wav").write_text("no sound")
    arguments = ["embed", str(music), str(tmp_path / "gone.wav"), "-o", str(tmp_path / "o.parquet")]
    assert main([*arguments, "--model", str(tmp_path / "small.safetensors")]) == 1
    captured = capsys.readouterr()
    assert "4 files embedded, 2 failed" in captured.out
    assert "bad\\nname.wav: it is a text file" in captured.err
    assert "gone.wav: no such file" in captured.err


def test_nothing_done_is_an_error(tmp_path, capsys):
    model = ["--model", str(tmp_path / "small.safetensors"), "-o", str(tmp_path / "o.parquet")]
    assert main(["embed", str(tmp_path / "gone"), *model]) == 2
    assert "0 files embedded, 1 failed" in capsys.readouterr().out


def test_untrained_weights_are_announced(music, tmp_path):
    command = [sys.executable, "-m", "hear_tune", "embed", music / "b.flac", "-o", "x.parquet"]
    command += ["--variant", "tune+"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stderr.count("tune+ has random weights") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "nowhere", "-o", "x.csv"], "must end in one of"),
        (
            ["embed", "/dev/null/x", "-o", "x.parquet", "--variant", "tuna"],
            "unknown variant 'tuna'",
        ),
        (["embed", "x", "-o", "x.parquet", "--model", "no.ckpt"], "no.ckpt: no such checkpoint"),
        (["embed", "x", "-o", "x.parquet", "--layers", "tail.77"], "unknown layer 'tail.77'"),
        (["embed", "x", "-o", "x.parquet", "--hop-ms", "9999"], "hop_ms must be from 0.045"),
        (["embed", "x", "-o", "x.parquet", "--device", "gpu"], "device"),
        (["embed", "x", "-o", "x.parquet", "--device", "meta"], "device 'meta' cannot be used"),
        (["embed", "x", "-o", "x.parquet", "--sha256", "00"], "no checkpoint was given"),
        (
            ["embed", "x", "-o", "x.parquet", "--per", "timestamp", "--hop-ms", "9"],
            "between windows",
        ),
        (
            ["embed", "x", "-o", "x.parquet", "--layers", "whitened", "--no-whitening"],
            "whitened is a whitening, which was not wanted",
        ),
        (["map", "x.parquet", "-o", "m.txt"], "name it m.html"),
        (["map", "x.parquet", "-o", "m.html", "--music", "no"], "no: no folder of music"),
        (["convert", "no.ckpt", "-o", "thesis.txt"], "must end in .safetensors"),
        (["variants", "tune-tail5"], "did you mean tune-tail"),
        (["variants", "--figure", "x.svg"], "needs the name"),
        (["convert", "no.ckpt", "-o", "x.safetensors"], "no.ckpt: no such checkpoint"),
    ],
)
@pytest.mark.filterwarnings("ignore::hear_tune.UntrainedWarning")
def test_mistakes_end_in_one_clear_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().splitlines()[-1].startswith("hear-tune: error: ")
    assert not list(tmp_path.glob("x.*"))


def test_variants(capsys):
    assert main(["variants"]) == 0
    table = capsys.readouterr().out
    for name in hear_tune.VARIANTS:
        assert name in table
    assert "2,246,040" in table


def test_one_variant_and_its_figure(tmp_path, capsys):
    for name, variant in hear_tune.VARIANTS.items():
        assert main(["variants", name, "--figure", str(tmp_path / "x.svg")]) == 0
        text = capsys.readouterr().out
        layers = hear_tune.build_encoder(variant.config).layers
        assert all(f"{layer.name} " in text for layer in layers)
        drawing = ElementTree.parse(tmp_path / "x.svg")
        texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
        assert name in texts
        assert {str(layer.channels) for layer in layers} <= set(texts)


def test_convert_to_half_precision(tmp_path, small_model, capsys):
    encoder = copy.deepcopy(small_model.encoder)
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    hear_tune.save_checkpoint(encoder, whole)
    assert main(["convert", str(whole), "-o", str(half), "--half"]) == 0
    for a, b in zip(
        *(hear_tune.load_checkpoint(p).parameters() for p in (whole, half)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    encoder.tail["3"].norm.running_var.fill_(1e6)
    hear_tune.save_checkpoint(encoder, whole)
    capsys.readouterr()
    assert main(["convert", str(whole), "-o", str(half), "--half"]) == 2
    assert "weights beyond float16, in tail.3.norm.running_var" in capsys.readouterr().err


def test_convert(tmp_path, capsys):
    torch.manual_seed(0)
    encoder = hear_tune.build_encoder(hear_tune.TuneConfig(3, embedding_size=8)).eval()
    torch.save(lightning_checkpoint(encoder), tmp_path / "tune.ckpt")
    out = tmp_path / "tune.safetensors"
    assert main(["convert", str(tmp_path / "tune.ckpt"), "-o", str(out)]) == 0
    digest = capsys.readouterr().out.split()[-1]
    loaded = hear_tune.load_checkpoint(out, sha256=digest)
    audio = torch.from_numpy(np.float32(np.sin(np.arange(810))))[None, None]
    torch.testing.assert_close(loaded(audio), encoder(audio))


def test_a_checkpoint_can_name_the_layers_that_embed(tmp_path, small_model, capsys):
    plain, chosen = tmp_path / "plain.safetensors", tmp_path / "chosen.safetensors"
    hear_tune.save_checkpoint(small_model.encoder, plain)
    convert = ["convert", str(plain), "-o", str(chosen), "--layers"]
    assert main([*convert, "contractive.1,tail.2"]) == 0
    assert hear_tune.load_model(plain).layers == ["tail.3"]
    model = hear_tune.load_model(chosen)
    assert model.layers == ["contractive.1", "tail.2"]
    tone = np.float32(np.sin(np.arange(50_000)))
    several = hear_tune.load_model(plain, layers=model.layers)
    expected = hear_tune.embed_array(tone, 22_050, several).vectors
    np.testing.assert_array_equal(
        hear_tune.embed_array(tone, 22_050, model).vectors, expected, strict=True
    )
    assert hear_tune.load_model(chosen, layers="tail.3").layers == ["tail.3"]
    assert main([*convert, "tail.77"]) == 2
    assert "unknown layer 'tail.77'" in capsys.readouterr().err


def test_the_installed_command():
    result = subprocess.run(["hear-tune", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == hear_tune.__version__


@pytest.mark.parametrize(
    "arguments",
    [
        *(["embed", "x", "-o", "y.parquet", "--workers", count] for count in ("0", "-1", "1.5")),
        ["embed", "x", "-o", "y.parquet", "--hop-ms", "0"],
        ["embed", "x", "-o", "y.parquet", "--hop-ms", "nan"],
        ["store", "x", "-o", "y", "--workers", "0"],
        ["shards", "x", "-o", "y", "--workers", "0"],
        ["shards", "x", "-o", "y", "--clip-seconds", "0"],
        ["shards", "x", "-o", "y", "--clips-per-shard", "-3"],
        ["shards", "x", "-o", "y", "--seed", "-1"],
        ["augment", "x", "-o", "y", "--views", "0"],
        ["augment", "x", "-o", "y", "--seconds", "-1"],
        ["benchmark", "embed", "--repeats", "0"],
        ["benchmark", "embed", "--tracks", "-1"],
        ["benchmark", "pretrain", "--batch-size", "0"],
        ["benchmark", "pretrain", "--batch-size", "1"],
        ["benchmark", "pretrain", "--crop-samples", "0"],
        ["similar", "x", "y.parquet", "--count", "0"],
        ["similar", "x", "y.parquet", "--at", "-1"],
        ["map", "y.parquet", "-o", "y.html", "--points", "0"],
        ["map", "y.parquet", "-o", "y.html", "--clusters", "0"],
    ],
    ids=" ".join,
)
def test_numbers_out_of_range_are_refused_when_they_are_parsed(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert f"argument {arguments[-2]}" in capsys.readouterr().err.replace("-n/", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed", "x", "-o", "y.parquet", "--over"],
        ["similar", "x", "y.parquet", "--per"],
        ["map", "y.parquet", "-o", "y.html", "--point", "3"],
    ],
    ids=" ".join,
)
def test_options_are_not_known_by_their_beginnings(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to"),
            "out of memory; try fewer --wor",
        ),
        (MemoryError(), "out of memory; try fewer --workers or --device cpu"),
        (BrokenProcessPool("a process"), "a process died, possibly out of memory; try fewer --w"),
    ],
)
def test_want_of_memory_ends_in_a_line_with_what_helps(error, message, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("hear_tune.hear.load_model", fail)
    assert main(["embed", "x", "-o", "y.parquet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hear-tune: error: {message}")


def test_an_export_that_differs_ends_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export.FramedEncoder, "forward", lambda _, audio: audio[:, :8] * 1.0)
    model = ["--model", str(tmp_path / "small.safetensors")]
    assert main(["export", str(tmp_path / "x.pt2"), *model]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hear-tune: error: ")
    can_export = hasattr(torch.fx.experimental._config, "backed_size_oblivious")
    assert line.endswith("not written: try .onnx" if can_export else "install a newer one")


@pytest.fixture
def accented(tmp_path, monkeypatch, small_model):
    """A library with a track whose name is not ASCII, and its model's options."""
    (tmp_path / "M").mkdir()
    for name in ("é.wav", "o.wav"):
        soundfile.write(tmp_path / "M" / name, noise(9_000, len(name)), 22_050)
    (tmp_path / "M" / "ñ.wav").write_text("no sound")
    monkeypatch.chdir(tmp_path)
    hear_tune.embed_folder("M", "é.parquet", small_model)
    return ["--model", str(tmp_path / "small.safetensors")]


def test_names_that_the_terminal_cannot_print(accented, monkeypatch):
    """Unprintable names are escaped, and every row is printed."""
    streams = {name: TextIOWrapper(BytesIO(), "ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    codes = [
        main(["embed", "M", "-o", "ü.parquet", *accented]),
        main(["similar", "M/o.wav", "é.parquet"]),
        main(["map", "é.parquet", "-o", "é.html", "--projection", "pca"]),
        main(["similar", "M/ß.wav", "é.parquet"]),
    ]
    assert codes == [1, 0, 0, 2]
    for stream in streams.values():
        stream.flush()
    said, complaints = (stream.buffer.getvalue().decode("ascii") for stream in streams.values())
    assert r"\xfc.parquet: 2 files embedded, 1 failed" in said
    assert r"M/\xe9.wav" in said
    assert r"\xe9.html: 2 tracks" in said
    assert r"failed: M/\xf1.wav: " in complaints
    assert r"M/\xdf.wav: neither a file nor a path" in complaints


def test_a_program_without_a_terminal(accented, tmp_path, monkeypatch, capsys):
    """Windowed programs have no standard error: no bar, and no complaint in the output."""
    monkeypatch.setattr(sys, "stderr", None)
    codes = [
        main(["embed", "M", "-o", "o.parquet", *accented]),
        main(["embed", "M", "-o", "o.parquet", *accented]),
        main(["similar", "M/o.wav", "o.parquet"]),
        main(["map", "o.parquet", "-o", "o.html", "--projection", "pca"]),
        main(["store", "M", "-o", "store", "--workers", "1", "--verify"]),
        main(["shards", "store", "-o", "shards", "--workers", "1"]),
        main(["shards", *map(str, (tmp_path / "shards").glob("*.tar")), "-o", "again"]),
        main(["similar", "M/gone.wav", "o.parquet"]),
    ]
    assert codes == [1, 1, 0, 0, 1, 0, 0, 2]
    said = capsys.readouterr().out
    assert "M/é.wav" in said
    assert "failed:" not in said
    assert "error" not in said


@pytest.mark.parametrize("command", [["similar"], ["data", "info"], ["hear", "table"]])
def test_usage_names_the_command_alone(command, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: hear-tune {' '.join(command)} [-h]")
