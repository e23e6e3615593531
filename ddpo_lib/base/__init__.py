"""In: nothing of the library, and numbers, arrays and files of any kind.
Out: intervals and tests, arrays kept on disk, JSON files, the run folder with its manifests, the user's error."""
