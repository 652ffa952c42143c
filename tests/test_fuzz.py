"""Damaged input of every kind is used or refused in words; by the thousand: ``fuzz.py``."""

import os
import pickletools
import random
import time
from pathlib import Path

import fuzz
import pytest

import hear_tune


@pytest.fixture(scope="module")
def child():
    child = fuzz.Child()
    yield child
    child.close()


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("audio", 60),
        ("checkpoints", 300),
        ("outputs", 80),
        ("stores", 60),
        ("shards", 30),
        ("tables", 150),
        ("logs", 10),
        ("results", 10),
        ("configs", 6),
    ],
)
def test_damaged_input(child, name, cases):
    judged = list(fuzz.fuzz(child, name, range(cases), seed=0))
    assert len(judged) == cases
    assert [(number, how) for number, good, how, _ in judged if not good] == []
    assert any(how != "used" for _, _, how, _ in judged)


def misbehave(folder):
    match folder.name:
        case "crash":
            os.abort()
        case "hang":
            time.sleep(60)
        case "bug":
            raise ZeroDivisionError
        case "waste":
            bytes(b"x" * (2 * fuzz.MEMORY_BYTES))
        case "greed":
            bytearray(2 * fuzz.SPACE_BYTES)
        case "code":
            os.system("true")
        case "silence":
            raise hear_tune.CheckpointError("something is wrong")


@pytest.mark.parametrize(
    ("offence", "how"),
    [
        ("crash", "the process died (-6)"),
        ("hang", "no end after 1 s"),
        ("bug", "ZeroDivisionError at test_fuzz.py"),
        ("waste", "MiB of memory"),
        ("greed", "MemoryError"),
        ("code", "called ['os.system']"),
        ("silence", "no file is named: something is wrong"),
        ("nothing", "used"),
    ],
)
def test_offences_are_seen(child, offence, how, tmp_path):
    refusals = (hear_tune.CheckpointError,)
    target = fuzz.Target(Path.mkdir, misbehave, refusals, calls_nothing=True)
    good, seen = child.judge(target, tmp_path / offence, seconds=1 if offence == "hang" else 60)
    assert how in seen
    assert good == (offence == "nothing")


def test_programs_have_every_opcode():
    rng = random.Random(0)
    found = set()
    for _ in range(3000):
        found.update(fuzz.pickle_program(rng)[:1])
    assert found == {ord(opcode.code.encode("latin-1")) for opcode in pickletools.opcodes}
