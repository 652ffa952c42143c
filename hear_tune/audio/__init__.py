"""Reading audio files: finding, decoding, mixing to mono and resampling."""
