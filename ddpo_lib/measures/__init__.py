"""In: samples, or prompts with responses.
Out: diversity, a number a prompt; quality, a number a response, and what that quality is worth."""
