"""In: a model's name in a profile.
Out: its tokenizer and the model itself, at an exact version, without a network where it can be."""
