"""In: texts, and the name of a space.
Out: unit vectors, (n, d) float32, one row per text."""
