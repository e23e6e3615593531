"""In: arrays and files of any kind; no other room of the library.
Out: arrays kept on disk, locks, JSON files, run folders with their manifests, the error for bad input."""
