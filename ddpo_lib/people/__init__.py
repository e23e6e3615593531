"""In: samples of arms, and answers of people or of a model that takes their place.
Out: an annotation study, and from its answers win rates, agreement and what the study can detect."""
