"""Heads that predict boxes at every place of a map."""
