"""In: a profile's name, or a YAML file.
Out: one typed, frozen object that holds every knob of a run, checked."""
