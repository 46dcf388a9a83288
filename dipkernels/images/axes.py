"""Names of the axes of images in results."""

AXES = {1: ("x",), 2: ("y", "x")}  # by the number of spatial dimensions
