"""Stage outputs to detections."""
