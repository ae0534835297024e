"""One module per study: its arms, how one is run, and its table. tools/reproduce.py calls them."""
