"""In: tasks whose answers can be checked: arithmetic, programs, verse, uses of a thing; and a profile's arms.
Out: whether each answer is right and which right answer it is, and what training does to both."""
