"""In: diversity and quality of arms, and vectors of a corpus.
Out: differences with intervals, fronts, rankings, findings on deviation, and verdicts on the paper's claims."""
