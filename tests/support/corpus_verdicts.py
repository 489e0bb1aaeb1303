"""The verdicts on a case of the corpus: ours, and those of the tools that grid sites use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pilot.credentials.files import read_private_file
from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import CredentialRefusedError
from pilot.credentials.verify import verify_proxy
from pilot.errors import PilotError
from tests.support.corpus import Exhibit
from tests.support.forging import now

LIMIT_S = 30
VOMS_PROGRAM = Path(__file__).with_name("vomsapi_oracle.py")
ACCEPTS, REFUSES, SILENT, CRASHES, VARIES = "accepts", "refuses", "-", "crashes", "varies"
KNOWN_RELEASES = range(17, 23)
"""Patch releases of OpenSSL 3.0 with which the verdicts were compared: those that Debian 12 has had of late."""


def ours(exhibit: Exhibit) -> frozenset[str]:
    """Codes of our refusals, or the reason of an error about the file; empty if we accept."""
    trust = DirectoryTrust(exhibit.site.cert_dir, exhibit.site.voms_dir)
    try:
        verify_proxy(read_private_file(str(exhibit.path), os.getuid()), trust, now(), exhibit.case.options)
    except CredentialRefusedError as error:
        return error.codes
    except PilotError as error:
        return frozenset({error.reason})
    return frozenset()


def _run(exhibit: Exhibit, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "X509_CERT_DIR": str(exhibit.site.cert_dir), "X509_VOMS_DIR": str(exhibit.site.voms_dir)}
    return subprocess.run(
        argv, capture_output=True, text=True, errors="replace", env=environment, timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL
    )


def _verdict(code: int, *, good: bool) -> str:
    return CRASHES if code < 0 else ACCEPTS if good else REFUSES


def openssl(exhibit: Exhibit) -> str:
    """`openssl verify` with proxies allowed, revocation lists for the whole chain."""
    file = str(exhibit.path)
    options = ("-allow_proxy_certs", "-crl_check_all", "-CApath", str(exhibit.site.cert_dir), "-untrusted", file)
    done = _run(exhibit, "openssl", "verify", *options, file)
    return _verdict(done.returncode, good=done.returncode == 0)


def globus(exhibit: Exhibit) -> str:
    """`grid-proxy-init -verify`, which makes a proxy below the given one, then verifies that."""
    file = str(exhibit.path)
    made = exhibit.path.with_suffix(".globus")
    # The small key is only that of the proxy below, and saves a tenth of a second each time.
    done = _run(exhibit, "grid-proxy-init", "-q", "-verify", "-bits", "1024", "-cert", file, "-key", file, "-out", str(made))
    made.unlink(missing_ok=True)
    return _verdict(done.returncode, good="Proxy Verify OK" in done.stdout)


def info(exhibit: Exhibit) -> str:
    """`grid-proxy-info -exists`, which looks at the file more than at what it holds."""
    done = _run(exhibit, "grid-proxy-info", "-file", str(exhibit.path), "-exists")
    return _verdict(done.returncode, good=done.returncode == 0)


def voms(exhibits: Sequence[Exhibit]) -> list[str]:
    """The VOMS library with full verification; a crash concerns one case only."""
    verdicts: list[str] = []
    while len(verdicts) < len(exhibits):
        rest = exhibits[len(verdicts) :]
        lines = "".join(f"{exhibit.path}\t{exhibit.site.voms_dir}\t{exhibit.site.cert_dir}\n" for exhibit in rest)
        program = [sys.executable, str(VOMS_PROGRAM)]
        done = subprocess.run(program, input=lines, capture_output=True, text=True, timeout=LIMIT_S + len(rest), check=False)
        verdicts += [ACCEPTS if line.startswith("accepts") else REFUSES for line in done.stdout.splitlines()]
        if done.returncode and len(verdicts) < len(exhibits):
            verdicts.append(CRASHES)
    return verdicts


def release_of_openssl() -> str:
    """The release on this machine, as ``3.0.19``."""
    return subprocess.run(["openssl", "version"], capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout.split()[1]


def oracle_verdicts(exhibits: Sequence[Exhibit]) -> list[dict[str, str]]:
    """The verdict of each tool on each case, ``-`` where the tool does not look at such a defect, ``varies`` where releases disagree."""
    from_voms = iter(voms([exhibit for exhibit in exhibits if "voms" in exhibit.case.oracles]))
    verdicts = [
        {
            "openssl": openssl(exhibit) if "openssl" in exhibit.case.oracles else SILENT,
            "globus": globus(exhibit) if "globus" in exhibit.case.oracles else SILENT,
            "info": info(exhibit) if "info" in exhibit.case.oracles else SILENT,
            "voms": next(from_voms) if "voms" in exhibit.case.oracles else SILENT,
        }
        for exhibit in exhibits
    ]
    return [
        verdict | ({exhibit.case.varies: VARIES} if exhibit.case.varies else {})
        for exhibit, verdict in zip(exhibits, verdicts, strict=True)
    ]
