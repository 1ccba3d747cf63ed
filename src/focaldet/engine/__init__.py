"""Where the stations meet; the only reader of a Recipe."""
