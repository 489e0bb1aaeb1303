"""Checks of gLExec by calling it directly, with harmless commands."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from pilot.identity import glexec_contract as contract
from pilot.model import Secret
from pilot.selfcheck.results import Result, failed, ok

MARK = "PILOT_CHECK_MARK"
ENVIRONMENT = "/usr/bin/env"
CALL_ID = "pilot-check"


@dataclass(frozen=True, slots=True, kw_only=True)
class GlexecCall:
    """What a call of gLExec needs."""

    glexec: str
    private: Path
    """Directory of the pilot's alone, for the proxy file of the call."""
    pilot_proxy: str
    timeout_s: float


def refuses_impostor(call: GlexecCall, dn: str) -> Result:
    """A credential with the owner's name that no authority signed gets no account.

    Args:
        dn: the name that is forged.
    """
    code, said = _called(call, impostor(dn), (os.path.realpath("/usr/bin/id"),))
    if code == 0:
        return failed(
            f"gLExec gave an account to a forged credential ({said.strip()[:100]})",
            "take this node out of production; have LCMAPS verify proxies (lcmaps-plugins-verify-proxy)",
        )
    if code is None:
        return failed(f"gLExec did not answer within {call.timeout_s:g} s", "look at the site's mapping service")
    if code in (contract.DENIED, contract.CLIENT_ERROR):
        return ok(f"a forged credential was refused (exit code {code})")
    return failed(f"gLExec ended with {code} for a forged credential, not with its refusal {contract.DENIED}", "look at gLExec's log")


def cleans_environment(call: GlexecCall, owner: Secret[bytes]) -> Result:
    """Nothing of the pilot's environment reaches what runs under the owner's account."""
    code, said = _called(call, owner, (os.path.realpath(ENVIRONMENT),), {MARK: "seen"})
    if code != 0:
        return failed(f"gLExec ended with {code} for {ENVIRONMENT}", "look at the check of the mapping first, then at gLExec's log")
    if MARK in said:
        return failed("a variable of the pilot's environment reached the owner's account", "remove preserve_env_variables from glexec.conf")
    return ok("variables of the pilot do not reach the owner's account")


def impostor(dn: str) -> Secret[bytes]:
    """A certificate with key under somebody's name, signed by itself."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, dn.rpartition("CN=")[2][:64] or "nobody")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    return Secret(certificate.public_bytes(serialization.Encoding.PEM) + private)


def _called(
    call: GlexecCall, credential: Secret[bytes], command: tuple[str, ...], further: Mapping[str, str] | None = None
) -> tuple[int | None, str]:
    """Exit code (None: cut off) and standard output of one call."""
    with _file(call.private, credential) as path:
        environment = {**contract.call_environment(path, call.pilot_proxy, CALL_ID), **(further or {})}
        try:
            done = subprocess.run(
                contract.call_argv(call.glexec, list(command)),
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd="/",
                timeout=call.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, ""
        except OSError as error:
            return error.errno or 126, ""
    return done.returncode, done.stdout[:100_000].decode("utf-8", "replace")


@contextmanager
def _file(private: Path, credential: Secret[bytes]) -> Iterator[str]:
    path = private / f"check-{secrets.token_hex(8)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(credential.reveal())
        yield str(path)
    finally:
        path.unlink(missing_ok=True)
