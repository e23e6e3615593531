"""In: scores, a row per prompt or per prompt and seed.
Out: means, differences and ratios with intervals, tests, and how many prompts a verdict needs."""
