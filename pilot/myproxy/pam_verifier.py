#!/usr/bin/python3 -IS
"""The PAM check of a MyProxy passphrase, for pam_exec: asks the dispatcher to redeem the one-time token in it.

A program of its own: copy this one file beside a myproxy-server. It is called as ``pam_exec.so expose_authtok quiet PROGRAM
CONFIGURATION``: the passphrase comes on standard input, the MyProxy username in PAM_USER. The configuration is a JSON object
with the texts ``url`` (https), ``ca_dir``, ``cert``, ``key`` (a host certificate that the dispatcher admits; CA directory
with hashed names, CRLs included). Exit code 0: the token was good and is now consumed. 1: anything else; the reason goes to
standard error as well as to syslog (authpriv), never with the passphrase. Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import stat
import sys
import syslog

TIME_LIMIT_S = 20
MAX_PASSPHRASE_BYTES = 511  # more never arrives: PAM cuts it, so it cannot be a whole passphrase
MAX_CONFIGURATION_BYTES = 64 * 1024
MAX_REPLY_BYTES = 64 * 1024
FIELDS = ("url", "ca_dir", "cert", "key")
URL = re.compile(r"https://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?P<path>/[A-Za-z0-9._~%+=,/-]*)")
STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class RefusalError(Exception):
    """Why nothing is accepted; the text holds no secret."""


def main() -> int:
    """Return the exit code; whatever goes wrong is a refusal."""
    # Death by the signal itself, which PAM takes for a refusal: a handler would have to wait until name resolution comes back.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.alarm(TIME_LIMIT_S)
    username = os.environ.get("PAM_USER", "")
    try:
        check(username)
    except RefusalError as error:
        tell("refused", username, str(error))
        return 1
    except OSError as error:  # files, network, TLS
        tell("refused", username, f"cannot ask the dispatcher: {error.strerror or type(error).__name__}")
        return 1
    except Exception as error:  # fail closed; the text of an unforeseen error could hold anything
        tell("refused", username, type(error).__name__)
        return 1
    tell("accepted", username, "consumed")
    return 0


def check(username: str) -> None:
    """Consume the token. Raises RefusalError, OSError, ValueError."""
    if os.environ.get("PAM_TYPE", "auth") != "auth" or not username or len(sys.argv) != 2:
        msg = "not called by pam_exec for authentication with one configuration file"
        raise RefusalError(msg)
    config = configuration(sys.argv[1])
    if not redeemed(config, username, passphrase()):
        msg = "the dispatcher says no"
        raise RefusalError(msg)


def configuration(path: str) -> dict[str, str]:
    """Read the configuration file. Raises RefusalError, OSError, ValueError."""
    content = json.loads(private(path, stat.S_IWGRP | stat.S_IWOTH, MAX_CONFIGURATION_BYTES))
    if not isinstance(content, dict) or not all(isinstance(content.get(name), str) for name in FIELDS):
        msg = "the configuration needs the texts " + ", ".join(FIELDS)
        raise RefusalError(msg)
    private(content["key"], stat.S_IRWXG | stat.S_IRWXO, MAX_CONFIGURATION_BYTES)
    return content


def private(path: str, forbidden: int, limit: int) -> bytes:
    """Read a file of root or of this account that nobody else may change (or even read). Raises RefusalError, OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()) or status.st_mode & forbidden:
            msg = "a file of the configuration is not private: check the owner, and the mode (key: 0600)"
            raise RefusalError(msg)
        return os.read(handle, limit)
    finally:
        os.close(handle)


def passphrase() -> str:
    """Read the passphrase as pam_exec hands it over. Raises RefusalError."""
    data = sys.stdin.buffer.read(MAX_PASSPHRASE_BYTES + 2).rstrip(b"\0\n")
    if not 0 < len(data) <= MAX_PASSPHRASE_BYTES or not data.isascii():
        msg = "no passphrase, or one that cannot be a token"
        raise RefusalError(msg)
    return data.decode("ascii")


def redeemed(config: dict[str, str], username: str, secret: str) -> bool:
    """Ask the dispatcher, over TLS verified in both directions, whether the passphrase is good for the username."""
    url = URL.fullmatch(config["url"])
    if url is None:
        msg = "the url of the configuration is not https://HOST[:PORT]/PATH"
        raise RefusalError(msg)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(capath=config["ca_dir"])
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    context.load_cert_chain(config["cert"], config["key"])
    host, port = url["host"].strip("[]"), int(url["port"] or 443)
    body = json.dumps({"username": username, "passphrase": secret}).encode()
    with socket.create_connection((host, port), TIME_LIMIT_S) as plain, context.wrap_socket(plain, server_hostname=host) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the request must not wait for an acknowledgement
        status, answer = posted(connection, "{}:{}".format(url["host"], port), url["path"], body)
    if status != 200:
        msg = f"the dispatcher answers with HTTP status {status}"
        raise RefusalError(msg)
    content = json.loads(answer)
    return isinstance(content, dict) and content.get("success") is True


def posted(connection: ssl.SSLSocket, host: str, path: str, body: bytes) -> tuple[int, bytes]:
    """POST in HTTP/1.0 (RFC 1945: the reply ends with the connection); returns status, body. Raises RefusalError, OSError.

    The standard library's client would double the time of a check, for most of which its imports are at fault.
    """
    head = (
        f"POST {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    connection.sendall(head.encode("ascii") + body)
    reply = b""
    while len(reply) <= MAX_REPLY_BYTES:
        piece = connection.recv(MAX_REPLY_BYTES)
        if not piece:
            break
        reply += piece
    headers, found, content = reply.partition(b"\r\n\r\n")
    status = STATUS.match(headers)
    length = re.search(rb"(?i)\r\ncontent-length:[ \t]*([0-9]{1,7})[ \t]*(?:\r\n|\Z)", headers)
    # A reply that was cut off must not count, whatever it says so far.
    if not found or status is None or length is None or len(content) != int(length[1]) or len(reply) > MAX_REPLY_BYTES:
        msg = "the dispatcher's answer is not a whole reply of HTTP"
        raise RefusalError(msg)
    return int(status[1]), content


def tell(verdict: str, username: str, why: str) -> None:
    """Leave a record at the MyProxy host; the dispatcher keeps its own."""
    line = f"one-time token {verdict} for {username[:300]!a}: {why}"
    sys.stderr.write(f"pam_verifier: {line}\n")
    syslog.openlog("myproxy-one-time", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_NOTICE if verdict == "accepted" else syslog.LOG_WARNING, line)


if __name__ == "__main__":
    # No orderly end: tearing the interpreter down costs time and has nothing to add.
    code = main()
    sys.stderr.flush()
    os._exit(code)
