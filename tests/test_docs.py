"""Every example of the README and of docs/ runs, in the order of its page, in one folder.

Shell commands run as they stand, except that training is cut to a step, shards to a clip, grids of
probes to a point, and heareval's to its quickest (`SMALLER`); what installs, tests and reproduces
the paper is left to `.ci/run`, and downloads to their own tests (`ELSEWHERE`). Those of the README
run in a shell, those of docs/ in this process where they need no shell. Python runs as it stands,
and what a line says that it prints is compared. The pages of recipes are the recipes' own
READMEs: their commands need data and days, so that only their scripts are looked for.

What pages say of the package in numbers is compared with it (`facts`).
"""

import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout

import pytest
import soundfile
import torch
from conftest import ROOT, noise
from foreign import lightning_checkpoint

import hear_tune
from hear_tune.cli import main
from hear_tune.common.markdown import markdown_table
from hear_tune.networks.config import SAMPLE_RATE_HZ, TIMESTAMP_STRIDE, WINDOW_SAMPLES
from hear_tune.networks.summary import parameter_count, variants_table
from hear_tune.pretrain import (
    WHITENED_SIZE,
    WHITENING_COMPRESSION,
    WHITENING_CROPS,
    WHITENING_POWER,
)
from hear_tune.pretrain.tar_shards import CLIP_SECONDS, CLIPS_PER_SHARD, OPEN_SHARDS
from hear_tune.probe.across import LOGISTIC_C, RAW_C
from hear_tune.probe.protocols import JUKEMIR
from hear_tune.weights import DEFAULT_PRETRAINED, PRETRAINED

README = ROOT / "README.md"
PAGES = sorted(ROOT.glob("docs/*.md"))
RECIPES = sorted(ROOT.glob("recipes/**/README.md"))
NEEDS = {
    "hear": "heareval",
    "ray": "ray",
    "s3prl": "s3prl",
}  # by page; .ci/run has environments with these

SMALLER = {
    "hear-tune pretrain": (" --data.batch_size=2 --data.crop_samples=19683 --trainer.max_steps=1"),
    "hear-tune shards": " --clips-per-shard 1",
    "--protocol jukemir": " --points 1",
    "--whiten": " --crops 1600",
    "hear-tune hear run": " --grid faster --grid-points 1",
}
ELSEWHERE = {
    "pip ": ".ci/run",
    "pytest": ".ci/run",
    "sphinx-build": ".ci/run",
    "recipes/magnatagatune/run.sh": ".ci/run",
    "hear-tune benchmark": "tests/benchmarks/test_benchmarks.py",
    "hear-tune data download": "tests/datasets/test_download.py",
}
BLOCK_OR_INLINE = re.compile(r"^```(sh|python)\n(.*?)^```|`(hear-tune \w+ [^`\n]+)`", re.M | re.S)
PRINTED = re.compile(r"^print\(.*\)  # (?!seconds$)(.*)$", re.M)


def examples(page):
    """Shell commands and blocks of Python of a page, in its order: (language, text)."""
    for language, block, inline in BLOCK_OR_INLINE.findall(page.read_text()):
        if language == "python":
            yield language, block
            continue
        for line in (block or inline).replace("\\\n", " ").splitlines():
            if command := line.split("  #")[0].strip():
                yield "sh", command


def run(page, run_command):
    """Run the examples of a page in the current folder; returns what its Python has defined."""
    namespace = {}
    for language, text in examples(page):
        if language == "python":
            run_python(text, page, namespace)
        elif not text.startswith(tuple(ELSEWHERE)):
            assert text.startswith("hear-tune ")
            run_command(text + "".join(SMALLER[part] for part in SMALLER if part in text))
    return namespace


def run_in_shell(command):
    subprocess.run(command, shell=True, check=True)


def run_here(command):
    """Without the seconds that a new process takes to import torch."""
    if set("|&;<>$`*?~") & set(command):
        return run_in_shell(command)
    try:
        code = main(shlex.split(command)[1:])
    except SystemExit as end:
        code = end.code
    assert not code


def run_python(code, page, namespace):
    with redirect_stdout(io.StringIO()) as output:
        exec(compile(code, page.name, "exec"), namespace)
    printed = output.getvalue().splitlines()
    for line in PRINTED.findall(code):
        assert line in printed


@pytest.fixture
def workplace(tmp_path, music, monkeypatch):
    """The current folder, with what the examples mention."""
    music.rename(tmp_path / "MUSIC")
    (tmp_path / "more").mkdir()
    for copy in ("track.flac", "more/track.flac"):
        (tmp_path / copy).write_bytes((tmp_path / "MUSIC" / "b.flac").read_bytes())
    for label in ("loud", "soft"):
        (tmp_path / "LABELLED" / label).mkdir(parents=True)
        for number in range(12):
            sound = noise(9_000, number) * (1 if label == "loud" else 0.1)
            soundfile.write(tmp_path / "LABELLED" / label / f"{number}.wav", sound, 22_050)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    encoder = hear_tune.build_encoder(hear_tune.get_variant("tune-vanilla-small").config)
    torch.save(lightning_checkpoint(encoder), "theirs.ckpt")
    hear_tune.save_checkpoint(encoder, "ours.safetensors")
    return tmp_path


def as_ms(samples):
    return f"{1000 * samples / SAMPLE_RATE_HZ:,.2f} ms"


def facts():
    """What pages say of the package: (page, whole words with its numbers)."""
    model = hear_tune.load_model()
    encoder = model.encoder
    count, width = len(encoder.layers), sum(layer.channels for layer in encoder.layers)
    parameters = parameter_count(encoder.config)
    megabytes = PRETRAINED[DEFAULT_PRETRAINED].path.stat().st_size / 1e6
    window, paper = (f"{n:,} samples ({as_ms(n)})" for n in (model.window_samples, WINDOW_SAMPLES))
    timestamps = f"{TIMESTAMP_STRIDE} samples ({as_ms(TIMESTAMP_STRIDE)})"
    of_timestamps = ", ".join(f"`{name}`" for name in model.timestamp_layers)
    size, timestamp_size = model.scene_embedding_size, model.timestamp_embedding_size
    rows = [["layer", "channels", "a frame every", "receptive field"]]
    for layer in encoder.layers:
        times = as_ms(layer.stride), as_ms(layer.grid.receptive_field)
        rows.append([f"`{layer.name}`", str(layer.channels), *times])
    yield "README", f"come with the package ({megabytes:.0f} MB)."
    yield "MODEL_CARD", f"float16 safetensors, {megabytes:.1f} MB;"
    yield "docs/embed", f"resampled to {SAMPLE_RATE_HZ:,} Hz."
    yield "docs/index", f"an embedding of {size} numbers,"
    yield "docs/index", f"Weights come with the package ({megabytes:.1f} MB),"
    yield "docs/layers", f"by a [whitening](#whitening) of several layers, {size} numbers."
    yield "docs/layers", f"TUNE+ has {count} layers,"
    yield "docs/layers", markdown_table(rows, right=True)
    yield "docs/layers", f"takes all of them ({width:,} numbers)."
    yield "docs/layers", f"`log(1 + {WHITENING_COMPRESSION:g} x / s)`,"
    yield "docs/layers", f"with a power of {WHITENING_POWER} (`--power`;"
    yield "docs/layers", f"fitted on {WHITENING_CROPS:,} windows (`--crops`),"
    yield "docs/layers", f"of at most {WHITENED_SIZE} numbers (`--size`),"
    yield "docs/layers", f"were trained on: {window} for those in the package,"
    yield "docs/layers", f"{paper} for the paper's."
    yield "docs/layers", f"one embedding every {timestamps},"
    yield "docs/layers", f"By default they are {of_timestamps}, {timestamp_size} numbers;"
    yield "docs/network", f"TUNE+ has {parameters:,} parameters."
    yield "docs/pretrain", f"16-bit PCM at {SAMPLE_RATE_HZ:,} Hz,"
    yield "docs/pretrain", f"{SAMPLE_RATE_HZ * 7200 / 1e6:.0f} MB per hour of music."
    yield "docs/probe", f"a grid of {len(JUKEMIR.grid)} settings,"
    yield "docs/probe", f"logistic regression on standardised embeddings (C = {LOGISTIC_C}),"
    yield "docs/probe", f"so their scale matters (C = {RAW_C})"
    yield "docs/reproduce", f"```text\n{variants_table()}\n```"
    yield "docs/reproduce", f"the paper's windows, {paper}."
    yield "docs/scale", f"Clips are about {CLIP_SECONDS:.0f} s long"
    yield "docs/scale", f"(`--clip-seconds`), {CLIPS_PER_SHARD} to a shard"
    yield "docs/scale", f"Each reader mixes up to {OPEN_SHARDS} open shards."


def test_pages_say_what_is_true_of_the_package():
    missing = []
    for page, fact in facts():
        text = (ROOT / f"{page}.md").read_text()
        if "\n" not in fact:
            text, fact = f" {' '.join(text.split())} ", f" {fact} "  # lines may break anywhere
        if fact not in text:
            missing.append(f"{page}.md should say: {fact}")
    assert not missing


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
@pytest.mark.filterwarnings("ignore::hear_tune.UntrainedWarning")
def test_readme():
    """A reader who types all of it, from top to bottom."""
    namespace = run(README, run_in_shell)
    assert namespace["track"].vectors.shape == (1, 512)
    assert namespace["report"].failed == {}


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page):
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem])
    run(page, run_here)


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_ci_does_what_a_checkout_is_told_to(page):
    script = (ROOT / ".ci/run").read_text()
    for _, command in examples(page):
        if command.startswith(("pip install -e", "pip install --no-deps", "pytest")):
            assert command in script


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.parent.name)
def test_recipe_is_there(page):
    """The scripts that a recipe calls exist, and it has a page."""
    for script in re.findall(r"recipes/\S+\.(?:sh|py)\b", page.read_text()):
        assert (ROOT / script).is_file()
    name = "index" if page.parent.name == "recipes" else page.parent.name
    assert page.relative_to(ROOT).as_posix() in (ROOT / f"docs/recipes/{name}.md").read_text()


@pytest.mark.parametrize("name", hear_tune.__all__)
def test_public_name_has_a_place_in_the_reference(name):
    reference = (ROOT / "docs/api/hear_tune.md").read_text()
    assert name == "__version__" or re.search(rf":: {name}$", reference, re.M)


def test_figure_is_up_to_date():
    from hear_tune.networks.figure import network_svg

    drawing = (ROOT / "figures/tune-plus.svg").read_text()
    assert drawing == network_svg(hear_tune.get_variant("tune+"))


def test_the_figure_of_targets_is_that_of_the_recipe(tmp_path):
    script, config = ROOT / "figures/objective.py", ROOT / "recipes/weights/acoustic.yaml"
    drawn = tmp_path / "objective.svg"
    subprocess.run([sys.executable, script, config, drawn], check=True)
    assert drawn.read_text() == (ROOT / "figures/objective.svg").read_text()
