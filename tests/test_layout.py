"""The order of the house: which room may import from which, and what ``--help`` may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hear_tune

PACKAGE = Path(hear_tune.__file__).parent
UPSTREAM = PACKAGE.parent / "upstream"

# from the bottom up: a room imports from those above it in this list
FLOORS = (
    ("common", "weights"),
    ("networks",),
    ("audio",),
    ("checkpoints",),
    ("embedding",),
    ("hear", "datasets"),
    ("baselines", "pretrain", "hear_benchmark", "upstream"),
    ("benchmarks", "probe"),
    ("explore",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
COMMANDS = (
    "embed", "export", "similar", "map", "report", "data", "probe", "hear", "s3prl", "store",
    "shards", "augment", "variants", "convert", "benchmark",
)  # fmt: skip


def modules():
    """(name below hear_tune, file) of every module but the package's own."""
    for folder, prefix in ((PACKAGE, ()), (UPSTREAM, ("upstream",))):
        for path in sorted(folder.rglob("*.py")):
            parts = (*prefix, *path.relative_to(folder).with_suffix("").parts)
            if parts != ("__init__",):
                yield parts, path


def imported_rooms(parts, path):
    """Rooms that a module imports from, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        named = (node.module or "").split(".") if node.module else []
        if node.level:
            named = [*parts[: len(parts) - node.level], *named]
        elif named[:1] == ["hear_tune"]:
            named = named[1:]
        else:
            continue
        yield from named[:1] or [alias.name for alias in node.names if alias.name in FLOOR_OF]


def test_every_room_has_its_floor():
    assert {parts[0] for parts, _ in modules()} == set(FLOOR_OF)


def test_imports_point_downwards():
    upwards = [
        f"{'.'.join(parts)} imports from {room}"
        for parts, path in modules()
        for room in imported_rooms(parts, path)
        if room != parts[0] and FLOOR_OF[room] >= FLOOR_OF[parts[0]]
    ]
    assert upwards == []


def test_modules_of_the_benchmark_are_seen_to_import():
    files = dict(modules())
    parts = ("embedding", "folder")
    assert {"common", "audio", "networks"} <= set(imported_rooms(parts, files[parts]))


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


def test_importing_the_package_loads_no_torch_until_it_is_used():
    program = "import sys, hear_tune; assert 'torch' not in sys.modules; hear_tune.load_model"
    subprocess.run([sys.executable, "-c", program], check=True)
