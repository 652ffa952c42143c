"""Evaluate embeddings by probes, with the protocols of the field."""

LAYERS = "layers"  # clmr-linear on each layer
PROTOCOL_NAMES = (
    "clmr-linear",
    "jukemir",
    "knn",
    "logistic",
    "logistic-raw",
    LAYERS,
)  # the first is the default
BASELINE_NAMES = ("log-mel", "mfcc", "musicnn")
