"""The testbed's gLExec: compiles the emulation and installs it set-uid root, in a private namespace only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCES = tuple(Path(__file__).with_name(f"glexec_{part}.c") for part in ("emulation", "mapping", "lcmaps"))
COMPILE_S = 120.0


class GlexecBuildError(Exception):
    """The emulation cannot be built; the sentence says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glexec:
    """An installed emulation."""

    directory: Path

    @property
    def path(self) -> Path:
        """The executable, mode 4711."""
        return self.directory / "glexec"

    @property
    def log(self) -> Path:
        """One line per call: time, caller, GLEXEC_ID, DN, account, result."""
        return self.directory / "glexec.log"

    @property
    def gridmap(self) -> Path:
        """The grid-mapfile."""
        return self.directory / "grid-mapfile"

    @property
    def config(self) -> Path:
        """The configuration, whose path is compiled in."""
        return self.directory / "glexec.conf"

    def map(self, accounts: Mapping[str, str]) -> None:
        """Write the grid-mapfile: DN → account, or a fault such as ``!203`` (see the source)."""
        _write(self.gridmap, "".join(f'"{dn}" {account}\n' for dn, account in accounts.items()))

    def configure(self, *, caller_uid: int, ca_dir: Path, linger: bool = True, lcmaps_db: Path | None = None) -> None:
        """Write the configuration; with `lcmaps_db` the site's real LCMAPS maps, not the grid-mapfile."""
        lines = {"caller": caller_uid, "gridmapfile": self.gridmap, "cadir": ca_dir, "log": self.log, "linger": "yes" if linger else "no"}
        if lcmaps_db is not None:
            lines |= {"lcmapsdb": lcmaps_db, "vomsdir": ca_dir.parent / "vomsdir"}
        _write(self.config, "".join(f"{key} = {value}\n" for key, value in lines.items()))


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    path.chmod(0o600)


def build_glexec(directory: Path, *, caller_uid: int, accounts: Mapping[str, str], ca_dir: Path, linger: bool = True) -> Glexec:
    """Compile and install the emulation.

    Args:
        directory: where everything of it goes; made if missing. On a file system that honours set-uid, inside a namespace.
        caller_uid: the only account that may call it.
        accounts: DN → account.
        ca_dir: CAs and CRLs against which owners' proxies are verified.
        linger: stay as the parent (True) or become the command (False).

    Raises:
        GlexecBuildError: no compiler, no OpenSSL headers, or not root.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        msg = "cannot build the gLExec emulation: there is no C compiler; install gcc"
        raise GlexecBuildError(msg)
    if os.geteuid() != 0:
        msg = "cannot install the gLExec emulation: a set-uid root program needs root"
        raise GlexecBuildError(msg)
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    glexec = Glexec(directory=directory)
    argv = [compiler, "-O1", "-Wall", "-Wextra", "-Werror=format-security", f'-DCONFIG_PATH="{glexec.config}"']
    argv += ["-o", str(glexec.path), *map(str, SOURCES), "-lcrypto"]
    built = subprocess.run(argv, capture_output=True, text=True, timeout=COMPILE_S, check=False)
    if built.returncode != 0:
        first = next(iter(built.stderr.strip().splitlines()), "no message")
        msg = f"cannot build the gLExec emulation: {first}; install gcc, libc6-dev and libssl-dev"
        raise GlexecBuildError(msg)
    glexec.configure(caller_uid=caller_uid, ca_dir=ca_dir, linger=linger)
    glexec.map(accounts)
    os.chown(glexec.path, 0, 0)
    glexec.path.chmod(0o4711)
    return glexec
