"""In: artifacts of a run, and results kept with the project.
Out: figures, maps, tables, pages, and README's numbers."""
