"""Slide to tiles, predictions to slide: numpy arrays in, files out; no torch and no network code.

The modules in the order of the flow: `readers` open files, `slide` gives pixels at a resolution, `tissue` finds what is
worth reading, `tiling` lays the grid, `predictor` is the seam to the models, `stitching` puts their answers back,
`geojson` and `overlay` write what a pathologist opens; `run` does all of it for one slide, `images` for plain images.
"""
