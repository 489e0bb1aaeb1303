"""A copy of the pilot that every account of the machine can read, with an interpreter that every account can reach."""

from __future__ import annotations

import compileall
import os
import re
import shutil
import stat
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pilot

DISTRIBUTION = "multi-user-pilot"
_NAME = re.compile(r"^[A-Za-z0-9._-]+")


class SoftwareError(Exception):
    """The software cannot be copied; the text says why, with a remedy."""


def reachable_python() -> Path:
    """A Python of this minor version that other accounts can execute: this one, or the system's.

    Raises:
        SoftwareError: there is none.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (Path(sys.executable).resolve(), Path("/usr/bin") / version, Path("/usr/local/bin") / version):
        if candidate.exists() and _reachable(candidate.resolve()):
            return candidate
    raise SoftwareError(f"cannot find a {version} that other accounts can execute; install python3 and make the environment with it")


def _reachable(path: Path) -> bool:
    """True if everybody may execute the file and pass through the directories above it."""
    return all(os.stat(place).st_mode & stat.S_IXOTH for place in (path, *path.parents))  # noqa: PTH116


def deploy(target: Path) -> Path:
    """Copy the pilot with what it needs at run time.

    Args:
        target: directory to fill; made with mode 0755.

    Returns:
        The interpreter to run: ``TARGET/bin/python -I -m pilot``.

    Raises:
        SoftwareError: no reachable interpreter.
    """
    base = reachable_python()
    packages = target / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    (target / "bin").mkdir()
    (target / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (target / "bin" / "python").symlink_to(base)
    source = Path(pilot.__file__).parent
    shutil.copytree(source, packages / "pilot", ignore=shutil.ignore_patterns("__pycache__"))
    for name in sorted(_requirements(DISTRIBUTION)):
        _copy_distribution(name, packages)
    wrappers = source.parent / "wrappers"
    if wrappers.is_dir():
        shutil.copytree(wrappers, target / "wrappers")
    compileall.compile_dir(packages, quiet=2, workers=0)
    _open_for_all(target)
    return target / "bin" / "python"


def _requirements(name: str) -> set[str]:
    """Names of all distributions that one needs at run time, at any depth."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        try:
            needs = distribution(waiting.pop()).requires or []
        except PackageNotFoundError:
            continue  # needed on other platforms only
        for need in needs:
            match = _NAME.match(need)
            if match and "extra ==" not in need and match.group() not in found:
                found.add(match.group())
                waiting.append(match.group())
    return found


def _copy_distribution(name: str, packages: Path) -> None:
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return
    for file in files:
        if ".." in file.parts or "__pycache__" in file.parts:
            continue  # scripts, which nothing here calls
        goal = packages / file
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(str(file.locate())), goal)


def _open_for_all(target: Path) -> None:
    for place, _, names in os.walk(target):
        Path(place).chmod(0o755)
        for name in names:
            path = Path(place, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.suffix in {".sh", ".so"} else 0o644)
