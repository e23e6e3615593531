"""In: what a server that speaks OpenAI's protocol sends.
Out: its choices; or its fault, and a form of request that avoids it."""
