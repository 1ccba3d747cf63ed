"""Boxes as numbers: no weights, no files, no recipe."""
