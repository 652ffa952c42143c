"""How good an embedding is for given labels: the evaluation protocols of the field."""
