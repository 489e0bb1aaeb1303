"""How a command takes a secret: from an open file descriptor or the terminal, never from arguments or the environment."""

from __future__ import annotations

import argparse
import getpass
import os

from pilot.errors import ConfigurationError
from pilot.model import Secret

MAX_BYTES = 1024


def add_secret_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--passphrase-fd``, ``--prompt``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--passphrase-fd", type=int, metavar="N", help=f"read {what} from this open file descriptor (0: standard input)")
    group.add_argument("--prompt", action="store_true", help=f"ask for {what} on the terminal")


def read_secret(options: argparse.Namespace, *, twice: bool = False) -> Secret[str]:
    """Take the secret as the options say; empty if they say nothing.

    Raises:
        ConfigurationError: the descriptor cannot be read, what comes is empty or too long, or the two entries differ.
    """
    if options.passphrase_fd is not None:
        return _checked(_from_descriptor(options.passphrase_fd))
    if not options.prompt:
        return Secret("")
    try:
        first = getpass.getpass("Passphrase: ")
        again = getpass.getpass("Again: ") if twice else first
    except EOFError:
        first = again = ""
    if first != again:
        msg = "cannot use the passphrase: the two entries differ; try again"
        raise ConfigurationError(msg, reason="passphrase")
    return _checked(first)


def _from_descriptor(number: int) -> str:
    data = b""
    try:
        while len(data) <= MAX_BYTES and (piece := os.read(number, MAX_BYTES + 2)):
            data += piece
            if data.endswith(b"\n"):
                break
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "no descriptor has such a number"
        msg = f"cannot read the passphrase from file descriptor {number}: {why}; open it for reading"
        raise ConfigurationError(msg, reason="passphrase") from error
    try:
        return data.removesuffix(b"\n").decode()
    except UnicodeDecodeError:
        msg = "cannot use the passphrase: it is not valid UTF-8"
        raise ConfigurationError(msg, reason="passphrase") from None  # the original quotes it


def _checked(text: str) -> Secret[str]:
    if not text or len(text.encode()) > MAX_BYTES:
        msg = f"cannot use the passphrase: it is empty or has more than {MAX_BYTES} bytes; give one, or leave the option out"
        raise ConfigurationError(msg, reason="passphrase")
    return Secret(text)
