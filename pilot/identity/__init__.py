"""Changing identity: the gateways to the payload owner's account."""
