"""In: prompts, and a model: loaded here, in vLLM or behind a server.
Out: a table of samples, one row per sample."""
