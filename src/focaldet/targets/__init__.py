"""Anchors and truth to what every anchor should have said."""
