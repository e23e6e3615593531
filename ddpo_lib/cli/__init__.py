"""In: the command line `ddpo ...`.
Out: one clear line for each result or error, and an exit status."""
