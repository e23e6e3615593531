"""In: prompts, and a model here, in vLLM or behind a server.
Out: a table of samples, a row a sample."""
