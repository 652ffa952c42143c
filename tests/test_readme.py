"""Every command and every line of Python in the README runs."""

import re
import shlex
import subprocess

import pytest
import soundfile
import torch
from conftest import ROOT, noise
from test_checkpoints import lightning_checkpoint

import hear_tune

README = (ROOT / "README.md").read_text()
SHORT_RUN = ["--data.batch_size=2", "--data.crop_samples=19683", "--trainer.max_steps=1"]
RUN_BY_CI = ("pip ", "pytest")  # .ci/run installs and tests as the README says


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    inline = re.findall(r"`(hear-tune [^`]+)`", README)
    return [line.split("  #")[0].strip() for line in lines + inline if line.strip()]


@pytest.fixture
def workplace(tmp_path, music, monkeypatch):
    """A folder with what the README's examples mention."""
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


@pytest.mark.usefixtures("workplace")
@pytest.mark.filterwarnings("ignore::hear_tune.UntrainedWarning")
def test_everything_in_order():
    """A reader who types all of it, from top to bottom, in one folder."""
    for command in commands():
        if not command.startswith(RUN_BY_CI):
            program, *arguments = shlex.split(command)
            assert program == "hear-tune"
            if arguments[0] == "pretrain":
                arguments += SHORT_RUN
            subprocess.run([program, *arguments], check=True)
    namespace = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), namespace)
    assert namespace["track"].vectors.shape == (1, 512)
    assert namespace["scenes"].shape == (2, 512)
    assert namespace["embeddings"].shape == (2, 91, 1040)
    assert namespace["report"].failed == {}


def test_commands_of_ci():
    script = (ROOT / ".ci/run").read_text()
    for command in commands():
        if command.startswith(RUN_BY_CI) and "hear-tune" not in command:
            assert command in script


def test_figure_is_up_to_date():
    from hear_tune.figure import network_svg

    drawing = (ROOT / "figures/tune-plus.svg").read_text()
    assert drawing == network_svg(hear_tune.get_variant("tune+"))
