"""In: a model's name in a profile.
Out: its tokenizer and the model, at an exact version, without a network if possible; ways to run it faster."""
