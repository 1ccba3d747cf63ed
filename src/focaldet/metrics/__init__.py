"""Detections beside truth to figures; reads no files."""
