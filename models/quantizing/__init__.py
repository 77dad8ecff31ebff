"""The steps of making an int8 file: what can be quantised, on which inputs, how weights are rounded."""
