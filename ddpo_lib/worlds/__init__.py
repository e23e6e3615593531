"""In: a grammar of stories whose modes are known, and a profile's grid.
Out: small models trained in such worlds, and the probability that each gives to every mode."""
