"""Checkpoints as the TUNE authors write them."""

import collections

import torch


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
