"""In: tables and results of a run.
Out: parts of a page that readers can change, in the book and in JupyterLab."""
