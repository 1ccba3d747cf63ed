"""What `focaldet bench` measures."""
