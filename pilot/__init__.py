"""A multi-user pilot: the agent that a batch system starts and that runs each payload as the user who owns it."""

__version__ = "0.1.0"
