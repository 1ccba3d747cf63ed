"""What was detected, and the files it is kept in."""
