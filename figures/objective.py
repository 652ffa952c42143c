#!/usr/bin/env python3
"""Draw which layer answers for what in a configuration of pre-training.

objective.py CONFIG.yaml OUT.svg
"""

import sys
from collections import defaultdict
from pathlib import Path

import yaml

from hear_tune.networks.figure import network_svg
from hear_tune.networks.variants import get_variant


def main(config: str, output: str) -> None:
    """Draw the network with the targets below its layers."""
    model = yaml.safe_load(Path(config).read_text())["model"]
    notes: dict[str, list[str]] = defaultdict(list)
    notes[model["clmr_layer"]].append("CLMR")
    for asked in model["objective"]:
        notes[asked["layer"]] += asked["targets"]
    Path(output).write_text(network_svg(get_variant(model["variant"]), notes))


if __name__ == "__main__":
    main(*sys.argv[1:])
