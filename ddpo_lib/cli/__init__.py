"""In: the command line `ddpo ...`.
Out: one clear line for each result or mistake, and a status."""
