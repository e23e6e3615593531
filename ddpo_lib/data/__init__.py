"""In: files or data sets of the hub that contain prompts and responses.
Out: one clean table with one row per response, split by prompt; and which prompts a model has seen."""
