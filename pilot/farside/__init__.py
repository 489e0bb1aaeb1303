"""The far side: what runs under the payload owner's account."""
