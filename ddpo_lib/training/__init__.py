"""In: pairs with weights, or responses, and a model.
Out: a trained adapter or model in a folder, with its log."""
