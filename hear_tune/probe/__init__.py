"""How good an embedding is for given labels: the evaluation protocols of the field."""

LAYERS = "layers"  # clmr-linear on each layer
PROTOCOL_NAMES = ("clmr-linear", "jukemir", LAYERS)  # the first is the default
BASELINE_NAMES = ("log-mel", "mfcc", "musicnn")
