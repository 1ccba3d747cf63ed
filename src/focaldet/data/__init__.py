"""Files to Sample to Batch."""
