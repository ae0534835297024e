"""The only code that knows an upstream defect: one small file for each, named after the package it mends.

Nothing happens on import. Each file's `install()` mends what it names, and does nothing where the defect is absent.
"""
