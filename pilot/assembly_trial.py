"""Trials of a site: a pilot without a claim, or with one payload that is made up here."""

from __future__ import annotations

import os
import secrets
import uuid
from dataclasses import dataclass

import msgspec

from pilot.config import Config
from pilot.credentials.own import own_credential
from pilot.errors import ConfigurationError
from pilot.model import OutputFile, Payload

LABEL, ENDPOINT, SCOPE = "test", "TRIAL", "pilot-test"
ADDRESS = "test-job"
"""By what the journal tells these flights from those of a dispatcher: their outcomes are for nobody else."""
PROGRAM = "import os, sys; open(sys.argv[1], 'w').write('uid %d\\n' % os.getuid()); print('test job in', os.getcwd())"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is tried."""

    dry: bool = False
    """Everything up to the claim, then the end."""
    payload: Payload | None = None
    """Flown instead of one from the dispatcher, which is not contacted."""
    keep: bool = False
    """The work directory stays."""


def test_job(config: Config, owner_proxy: str, stage_to: str) -> tuple[Config, Trial]:
    """A canned payload, with the configuration in which it flies.

    Args:
        owner_proxy: file with the proxy of the user as whom it runs; empty: it has none.
        stage_to: URL below which its output and log are stored; empty: nothing is stored.

    Raises:
        ProxyMissingError, ProxyUnsafeError, ProxyUntrustedError: of the owner's proxy. ConfigurationError: the URL cannot be used.
    """
    path = os.path.abspath(owner_proxy) if owner_proxy else ""  # noqa: PTH100 - a link must stay one, to be refused
    dn = own_credential(path, os.geteuid()).dn if path else ""
    credentials = {"sources": {LABEL: "file" if path else "none"}, "file": path, "file_dn": dn}
    endpoints = {ENDPOINT: stage_to.rstrip("/")} if stage_to else {}
    changes = {"credentials": credentials, "staging": {"endpoints": endpoints, "default_endpoint": ENDPOINT if stage_to else ""}}
    sections = {name: msgspec.to_builtins(getattr(config, name)) | fields for name, fields in changes.items()}
    sections["lifetime"] = msgspec.to_builtins(config.lifetime) | {"max_payloads": 1}
    try:
        changed = msgspec.convert(msgspec.to_builtins(config) | sections, type=Config)
    except msgspec.ValidationError:
        raise ConfigurationError(f"cannot stage the test job to {stage_to[:200]!r}: use an https: or file: URL of a directory") from None
    return changed, Trial(payload=_payload(config.identity.python, dn or "/CN=nobody", staged=bool(stage_to)))


def asked_for(config: Config) -> Config:
    """The configuration in which one payload of class ``test`` is asked for, whole path included."""
    limited = msgspec.structs.replace(config.lifetime, max_payloads=1, patience_s=0)
    return msgspec.structs.replace(config, dispatcher=msgspec.structs.replace(config.dispatcher, label=LABEL), lifetime=limited)


def _payload(python: str, owner: str, *, staged: bool) -> Payload:
    name = f"test-{secrets.token_hex(4)}"
    output = f"{name}.txt"
    outputs = (_file(output),) if staged else ()
    return Payload(
        id=name,
        attempt=1,
        owner=owner,
        label=LABEL,
        transformation=python,
        parameters=f'-I -c "{PROGRAM}" {output}'.replace("\\n", ""),
        outputs=outputs,
        log=_file(f"{name}.log.tgz") if staged else None,
    )


def _file(lfn: str) -> OutputFile:
    return OutputFile(lfn=lfn, scope=SCOPE, guid=str(uuid.uuid4()), endpoint=ENDPOINT)
