"""In: files or data sets of the hub that hold prompts and responses.
Out: one clean table, a row a response, split by prompt; and which prompts a model has seen."""
