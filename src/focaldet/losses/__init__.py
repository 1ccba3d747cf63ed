"""Stage outputs and stage targets to named scalars."""
