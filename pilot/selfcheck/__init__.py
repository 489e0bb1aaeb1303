"""The checks behind `pilot check`."""
