"""Arguments in, engine out, nothing between."""
