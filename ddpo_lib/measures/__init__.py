"""In: samples, or prompts with responses.
Out: diversity, per prompt; quality, per response; and a report on how good that quality is."""
