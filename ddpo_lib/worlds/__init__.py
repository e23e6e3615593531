"""In: a grammar of stories whose modes are known, and a profile's grid.
Out: small models trained in such worlds, and where the probability of each went."""
