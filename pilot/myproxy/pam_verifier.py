#!/usr/bin/python3 -IS
"""The PAM check of a MyProxy passphrase, for pam_exec: asks the dispatcher to redeem the one-time token in it.

Called as ``pam_exec.so expose_authtok quiet PROGRAM CONFIGURATION``: the passphrase comes on standard input, the MyProxy
username in PAM_USER. The configuration is a JSON object with the texts ``url`` (https), ``ca_dir``, ``cert``, ``key``.
Exit code 0: the token was good and is now consumed. 1: anything else. Needs only the standard library, Python 3.9 or newer.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import sys
from typing import NoReturn
from urllib.parse import urlsplit

TIME_LIMIT_S = 20
MAX_PASSPHRASE_BYTES = 511  # more never arrives: PAM cuts it, so it cannot be a whole passphrase
MAX_CONFIGURATION_BYTES = 64 * 1024
MAX_REPLY_BYTES = 64 * 1024


def main() -> int:
    """Return the exit code; whatever goes wrong is a refusal."""
    signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(TIME_LIMIT_S)
    try:
        return 0 if redeemed(configuration(sys.argv[1]), os.environ["PAM_USER"], passphrase()) else 1
    except Exception as error:  # fail closed, and say to the server's log which step failed, never with what
        sys.stderr.write("pam_verifier: cannot check the token: %s\n" % type(error).__name__)  # noqa: UP031 - plain for 3.9
        return 1


def configuration(path: str) -> dict[str, str]:
    """Read the configuration file."""
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib would double the start-up time
        content = json.loads(file.read(MAX_CONFIGURATION_BYTES))
    if not isinstance(content, dict) or not all(isinstance(content.get(name), str) for name in ("url", "ca_dir", "cert", "key")):
        msg = "the configuration needs the texts url, ca_dir, cert, key"
        raise ValueError(msg)
    return content


def passphrase() -> str:
    """Read the passphrase as pam_exec hands it over."""
    data = sys.stdin.buffer.read(MAX_PASSPHRASE_BYTES + 2).rstrip(b"\0\n")
    if not 0 < len(data) <= MAX_PASSPHRASE_BYTES:
        msg = "no passphrase, or one that was cut"
        raise ValueError(msg)
    return data.decode("ascii")


def redeemed(config: dict[str, str], username: str, secret: str) -> bool:
    """Ask the dispatcher, over TLS verified in both directions, whether the passphrase is good for the username."""
    url = urlsplit(config["url"])
    if url.scheme != "https" or not url.hostname:
        msg = "the url is not https"
        raise ValueError(msg)
    context = ssl.create_default_context(capath=config["ca_dir"])
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    context.load_cert_chain(config["cert"], config["key"])
    connection = http.client.HTTPSConnection(url.hostname, url.port or 443, timeout=TIME_LIMIT_S, context=context)
    body = json.dumps({"username": username, "passphrase": secret}).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    connection.request("POST", url.path, body=body, headers=headers)
    reply = connection.getresponse()
    answer = json.loads(reply.read(MAX_REPLY_BYTES))
    return reply.status == 200 and isinstance(answer, dict) and answer.get("success") is True


def _too_late(_number: int, _frame: object) -> NoReturn:
    os._exit(1)


if __name__ == "__main__":
    # No orderly end: tearing the interpreter down costs time and has nothing to add.
    code = main()
    sys.stderr.flush()
    os._exit(code)
