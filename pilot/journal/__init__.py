"""The memory that survives the pilot."""
