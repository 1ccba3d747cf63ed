"""Images to stage outputs: the networks. Start at `retinanet.py`."""
