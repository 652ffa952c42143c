"""Settings that determine the outcome of a training run; a run resumes only with the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import TrainingError

SETTINGS, MACHINE = "hear_tune_settings", "hear_tune_machine"  # keys of a run's checkpoint

# All options of "model" and "data" count, except those replaced by a summary of the data. Of
# Lightning's trainer these count; where and how long it trains, and what it logs, do not.
_BY_CONTENT = ("audio", "audio_by_folder", "workers")
_TRAINER = (
    "accumulate_grad_batches",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "overfit_batches",
    "precision",
    "sync_batchnorm",
)


def run_settings(
    options: Mapping[str, Any], content: Mapping[str, Any], trainer: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings that a run depends on, JSON-ready, by section of the command.

    Parameters
    ----------
    options : mapping
        All options of the command as plain values, by section.
    content : mapping
        Summary of the data, as in `hear_tune.pretrain.data.PretrainData`.
    trainer : mapping
        Settings known once the trainer is built.
    """
    data = {name: value for name, value in options["data"].items() if name not in _BY_CONTENT}
    return {
        "data": {**data, **content},
        "model": dict(options["model"]),
        "trainer": {**{name: options["trainer"].get(name) for name in _TRAINER}, **trainer},
    }


def check_settings(begun: Mapping[str, Any], wanted: Mapping[str, Any], checkpoint: str) -> None:
    """Raise a `TrainingError` that lists the differences from the settings of a checkpoint.

    Options that only one of the two has, from another version, are not compared; nor are initial
    weights that are no longer given, as the checkpoint has its own.
    """
    model = dict(wanted["model"])
    if model.get("weights") is None:
        model.pop("weights", None)
    differences = list(_differences(begun, {**wanted, "model": model}))
    if differences:
        raise TrainingError(
            f"{checkpoint}: was begun with {'; '.join(differences)}; choose another --output, or "
            "begin anew with --resume never"
        )


def machine_differences(written: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """List the differences between a checkpoint's machine and this one, as far as known."""
    return "; ".join(_differences(written, now))


def _differences(begun: Any, wanted: Any, name: str = "") -> Iterator[str]:
    """Yield a phrase for each different value, down to the arguments of a class."""
    if _kind(begun) == _kind(wanted):
        for key, one, other in _both(begun, wanted):
            yield from _differences(one, other, f"{name}.{key}" if name else str(key))
    elif begun != wanted:
        yield f"{name} {_short(begun)}, not {_short(wanted)}"


def _kind(value: Any) -> Any:
    """Return equal kinds for values that can be compared item by item, and for no others."""
    if isinstance(value, Mapping):
        return value.get("class_path")
    return len(value) if isinstance(value, list) else object()


def _both(begun: Any, wanted: Any) -> Iterable[tuple[Any, Any, Any]]:
    if isinstance(begun, list):
        pairs = zip(begun, wanted, strict=True)
        return [(number, one, other) for number, (one, other) in enumerate(pairs)]
    return [(key, value, wanted[key]) for key, value in begun.items() if key in wanted]


def _short(value: Any) -> str:
    """Format a value; a class with arguments by its name."""
    if isinstance(value, Mapping) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return repr(value)
