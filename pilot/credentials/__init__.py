"""Proxy credentials: reading, verifying, matching with their owner."""
