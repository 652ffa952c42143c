#!/usr/bin/env python3
"""Embed audio files with an exported model, by ONNX Runtime alone: no torch and no hear-tune.

    pip install onnxruntime soundfile soxr
    hear-tune export tune.onnx        # once, wherever hear-tune is installed
    python embed.py tune.onnx track.flac

The same steps give the same embeddings in any language that ONNX Runtime supports: decode, average
the channels, resample to the model's rate, run.
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile
import soxr


def main() -> None:
    """Print one line of JSON per file."""
    model, *files = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    record = json.loads(session.get_modelmeta().custom_metadata_map["hear_tune"])
    for name in files:
        audio, rate = soundfile.read(name, dtype="float32", always_2d=True)
        mono = soxr.resample(audio.mean(axis=1), rate, record["sample_rate"])
        (embedding,) = session.run(["embedding"], {"audio": mono[None].astype(np.float32)})
        print(json.dumps({"path": name, "embedding": embedding[0].tolist()}))


if __name__ == "__main__":
    main()
