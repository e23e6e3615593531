"""In: numbers, arrays and files of any kind; no other room of the library.
Out: intervals and tests, arrays kept on disk, JSON files, run folders with their manifests, the error for bad input."""
