"""In: artifacts of a run, and results stored with the project.
Out: figures, maps, tables, pages, and README's numbers."""
