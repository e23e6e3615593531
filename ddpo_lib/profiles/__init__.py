"""In: a profile's name, or a YAML file.
Out: one typed, frozen and checked object with every knob of a run."""
