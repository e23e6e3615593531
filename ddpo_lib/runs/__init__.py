"""In: a profile and a corpus.
Out: the steps of a run, how each artifact is made, and what a run will cost."""
