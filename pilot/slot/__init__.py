"""The slot that the batch system gave."""
