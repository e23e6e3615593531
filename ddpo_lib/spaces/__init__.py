"""In: texts, and the name of a space.
Out: unit vectors, (n, d) float32, a row a text."""
