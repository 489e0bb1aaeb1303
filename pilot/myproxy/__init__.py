"""Retrieval of the payload owner's proxy from a MyProxy server."""
