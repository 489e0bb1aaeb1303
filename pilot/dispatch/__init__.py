"""Talking to the server that hands out payloads."""
