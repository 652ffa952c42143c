"""How fast this is here: ratios to a plain program of the same run."""
