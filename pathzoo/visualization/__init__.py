"""Functions that return a Figure or an image; they never show one and never touch matplotlib's global state."""
