"""In: the pages that Sphinx wrote.
Out: the book that readers get: small, offline, and as one PDF."""
