"""Components of a grid site that run on loopback."""
