"""The order of the house: which room may import from which, and what ``--help`` may load."""

import ast
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

import hear_tune

# from the bottom up: a room imports from those above it in this list
FLOORS = (
    ("common", "weights"),
    ("networks",),
    ("audio",),
    ("checkpoints",),
    ("embedding",),
    ("hear", "datasets"),
    ("baselines", "pretrain", "upstream"),
    ("probe",),
    ("explore", "hear_benchmark"),
    ("benchmarks",),
    ("cli",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# all but pretrain, whose help is Lightning's
COMMANDS = sorted(
    path.stem
    for path in (ROOT / "hear_tune" / "cli").glob("*.py")
    if path.stem not in ("__init__", "__main__", "common", "pretrain")
)

rooms = SimpleNamespace(**runpy.run_path(str(ROOT / "figures" / "rooms.py")))


def test_every_room_has_its_floor():
    assert set(rooms.edges()) == set(FLOOR_OF)


def test_imports_point_downwards():
    upwards = [
        f"{'.'.join(parts)} imports from {room}"
        for parts, path in rooms.modules()
        for room in rooms.imported_rooms(parts, path) - {parts[0]}
        if FLOOR_OF.get(room, -1) >= FLOOR_OF[parts[0]]
    ]
    assert upwards == []


def test_imports_are_seen():
    files = dict(rooms.modules())
    parts = ("embedding", "folder")
    assert {"common", "audio"} <= rooms.imported_rooms(parts, files[parts])


def test_the_figure_is_that_of_the_imports():
    drawn = rooms.svg(rooms.edges())
    assert (ROOT / "figures" / "rooms.svg").read_text(encoding="utf-8") == drawn


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_loads_no_torch(command):
    program = (
        "import sys\nfrom hear_tune.cli import main\n"
        f"try: main({[*([command] if command else []), '--help']!r})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'pyarrow' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "usage: hear-tune" in run.stdout


def test_all_public_names_are_there():
    stub = ast.parse((ROOT / "hear_tune" / "__init__.pyi").read_text())
    (names,) = (ast.literal_eval(n.value) for n in stub.body if isinstance(n, ast.Assign))
    assert sorted(hear_tune.__all__) == sorted(names)
    assert all(hasattr(hear_tune, name) for name in names)


def test_importing_the_package_loads_no_torch_until_it_is_used():
    program = "import sys, hear_tune; assert 'torch' not in sys.modules; hear_tune.load_model"
    subprocess.run([sys.executable, "-c", program], check=True)
