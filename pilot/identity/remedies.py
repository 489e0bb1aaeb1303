"""What a transfer that failed in the owner's account means, with what to do about it."""

from __future__ import annotations

from pilot.errors import ChecksumError, InputMissingError, NoSpaceError, OutputMissingError, PilotError

FETCH_ERRORS: dict[str, type[PilotError]] = {"missing": InputMissingError, "checksum": ChecksumError, "no-space": NoSpaceError}
STORE_ERRORS: dict[str, type[PilotError]] = {"missing": OutputMissingError, "unsafe": OutputMissingError, "checksum": ChecksumError}
DEFAULT_REMEDY = "look at the storage and the network between"
REMEDIES = {
    "missing": "the owner must provide the file",
    "checksum": "the copy was discarded; compare the catalogue with the storage",
    "no-space": "free space on the worker node's scratch or use another one",
    "refused": "the storage's administrator and the owner can settle this",
    "untrusted": "nothing was sent; install the storage's CA and CRL or correct the URL",
    "unsafe": "outputs must be regular files with one name",
    "timeout": "the site can raise the staging time limit",
}
STORE_REMEDIES = {**REMEDIES, "missing": "the owner must correct the job, or its list of outputs"}
