"""Builds a release: our wheel, one relocatable file for an architecture, single-file wrappers, their digests.

    python wrappers/release/build.py --output DIR [--architecture x86_64] [--cache DIR]
    python wrappers/release/build.py --lock

The same sources and lock file give the same bytes: wheels are pinned by hash, times are `EPOCH`, modes and order are fixed. Needs pip and a
package index, or a cache that holds the wheels. `--lock` writes the lock files anew, with what the index has today.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
PYTHON = "3.11"
TAG = "cp311"
ARCHITECTURES = ("x86_64", "aarch64")
PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
"""glibc 2.28 is that of Enterprise Linux 8."""
EPOCH = 1_577_836_800
"""2020-01-01, the time of every file; zip files know no time before 1980."""
SOURCES = ("pilot", "pyproject.toml", "README.md", "LICENSE")
BUILD_TOOL = "setuptools"
START = '''"""Starts the pilot of this release."""
import sys

if sys.version_info[:2] != (3, 11):
    sys.stderr.write("pilot: cannot start: this release needs Python 3.11; set PILOT_PYTHON\\n")
    sys.exit(76)
sys.dont_write_bytecode = True
from pilot.__main__ import main  # noqa: E402

sys.exit(main())
'''


class BuildError(Exception):
    """The release cannot be built; the text says why."""


def main() -> int:
    """Build or lock, as the command line says."""
    parser = argparse.ArgumentParser(description="Build a release of the pilot.")
    parser.add_argument("--output", type=Path, help="directory for what is built")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=os.uname().machine)
    parser.add_argument("--cache", type=Path, help="directory that keeps downloaded wheels")
    parser.add_argument("--lock", action="store_true", help="write the lock files anew")
    options = parser.parse_args()
    try:
        if options.lock:
            lock()
        elif options.output is None:
            parser.error("--output is needed")
        else:
            for path in build(options.output, options.architecture, options.cache):
                sys.stdout.write(f"{path}\n")
    except (BuildError, OSError, subprocess.SubprocessError) as problem:
        sys.stderr.write(f"build: {problem}\n")
        return 1
    return 0


def build(output: Path, architecture: str, cache: Path | None = None) -> list[Path]:
    """Build everything for one architecture.

    Args:
        output: made if missing; files of the same names are replaced.
        architecture: of `ARCHITECTURES`.
        cache: keeps downloaded wheels for the next build.

    Raises:
        BuildError, subprocess.CalledProcessError: a wheel is missing or not the pinned one.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        wheels = downloaded(HERE / f"{architecture}.lock", architecture, cache or Path(scratch, "wheels"))
        tool = downloaded(HERE / "build.lock", architecture, cache or Path(scratch, "wheels"))
        own = own_wheel(Path(scratch), tool)
        name = f"pilot-{version()}-{TAG}-linux-{architecture}"
        built = [Path(shutil.copyfile(own, output / own.name)), output / f"{name}.tar.gz"]
        built[1].write_bytes(release(name, architecture, [own, *wheels]))
    for path in sorted((HERE.parent / "batch").glob("*.sh")):
        single = output / f"pilot-{version()}-wrapper-{path.stem}.sh"
        single.write_text(single_file(path))
        single.chmod(0o755)
        built.append(single)
    sums = output / f"{name}.SHA256SUMS"
    sums.write_text("".join(f"{digest(path.read_bytes())}  {path.name}\n" for path in built))
    return [*built, sums]


def version() -> str:
    """The version of the project."""
    told: str = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    return told


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------------------------------------------------------- wheels


def pinned(lock_file: Path) -> dict[str, str]:
    """The lines of a lock file: ``name==version`` to SHA-256."""
    lines = [line for line in lock_file.read_text().splitlines() if line and not line.startswith("#")]
    return {requirement: sum_ for requirement, sum_ in (line.split(" --hash=sha256:") for line in lines)}


def downloaded(lock_file: Path, architecture: str, cache: Path) -> list[Path]:
    """The wheels of a lock file, from the cache or through pip; each has the digest that is pinned."""
    wanted = pinned(lock_file)
    if not set(wanted.values()) <= set(_wheels(cache)):
        _download(["--require-hashes", "--no-deps", "-r", str(lock_file)], architecture, cache)
    found = _wheels(cache)
    missing = [requirement for requirement, sum_ in wanted.items() if sum_ not in found]
    if missing:
        raise BuildError(f"cannot get {', '.join(missing)} with the digest in {lock_file.name}")
    return [found[sum_] for sum_ in wanted.values()]


def _wheels(cache: Path) -> dict[str, Path]:
    return {digest(path.read_bytes()): path for path in cache.glob("*.whl")}


def _download(what: Sequence[str], architecture: str, target: Path) -> None:
    platforms = [word for platform in PLATFORMS for word in ("--platform", f"{platform}_{architecture}")]
    kind = ["--only-binary", ":all:", "--python-version", PYTHON, "--implementation", "cp"]
    abis = ["--abi", TAG, "--abi", "abi3", "--abi", "none"]
    command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--dest", str(target)]
    subprocess.run([*command, *kind, *abis, *platforms, *what], check=True, stdin=subprocess.DEVNULL, timeout=600)


def own_wheel(scratch: Path, tool: Iterable[Path]) -> Path:
    """Our wheel, built from a copy of the sources with the pinned build tool."""
    sources, goal = scratch / "sources", scratch / "own"
    goal.mkdir()
    sources.mkdir()
    for name in SOURCES:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info"))
        else:
            shutil.copyfile(PROJECT / name, sources / name)
    for path in [sources, *sources.rglob("*")]:  # a checkout may be closed to others
        path.chmod(0o755 if path.is_dir() else 0o644)
    for wheel in tool:
        _unpack(wheel, scratch / "tool")
    program = "import sys; sys.path.insert(0, sys.argv[1]); from setuptools import build_meta; build_meta.build_wheel(sys.argv[2])"
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(EPOCH), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", program, str(scratch / "tool"), str(goal)]
    done = subprocess.run(command, cwd=sources, env=environment, capture_output=True, text=True, check=False, timeout=300)
    built = list(goal.glob("*.whl"))
    if done.returncode != 0 or len(built) != 1:
        raise BuildError(f"cannot build the wheel:\n{done.stderr[-2000:]}")
    return built[0]


def _unpack(wheel: Path, target: Path) -> None:
    for name, data in contents(wheel).items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel that are importable or describe it (PEP 427); its scripts are left out, nothing here calls them."""
    files = {}
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = PurePosixPath(entry.filename)
            if path.is_absolute() or ".." in path.parts:
                raise BuildError(f"cannot use {wheel.name}: it holds {entry.filename}")
            if entry.is_dir() or path.parts[0].endswith(".data"):
                continue
            files[str(path)] = archive.read(entry)
    return files


# --------------------------------------------------------------------------------------------------------------- release


def release(name: str, architecture: str, wheels: Iterable[Path]) -> bytes:
    """The release file: `NAME/app` with all wheels unpacked, wrappers, site configurations, a manifest."""
    files: dict[str, tuple[bytes, int]] = {"app/__main__.py": (START.encode(), 0o644)}
    files["LICENSE"] = ((PROJECT / "LICENSE").read_bytes(), 0o644)
    used = []
    for wheel in wheels:
        used.append({"file": wheel.name, "sha256": digest(wheel.read_bytes())})
        for path, data in contents(wheel).items():
            if f"app/{path}" in files:
                raise BuildError(f"cannot unpack {wheel.name}: {path} is there already")
            files[f"app/{path}"] = (data, 0o644)
    files |= _copies()
    manifest = {
        "name": name,
        "version": version(),
        "architecture": architecture,
        "python": PYTHON,
        "wheels": sorted(used, key=lambda one: one["file"]),
        "files": {path: digest(data) for path, (data, _) in sorted(files.items())},
    }
    files["MANIFEST.json"] = ((json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode(), 0o644)
    return _tarball(name, files)


def _copies() -> dict[str, tuple[bytes, int]]:
    copies = {}
    for path in sorted([*(PROJECT / "wrappers").rglob("*"), *(PROJECT / "site_configs").rglob("*")]):
        if path.is_file() and not path.is_relative_to(HERE) and "__pycache__" not in path.parts:
            copies[str(path.relative_to(PROJECT))] = (path.read_bytes(), 0o755 if path.suffix == ".sh" else 0o644)
    return copies


def _tarball(name: str, files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """A gzipped tar in which nothing depends on the machine: order, owner, time, modes."""
    plain = io.BytesIO()
    places = sorted({str(place) for path in files for place in PurePosixPath(name, path).parents if str(place) != "."})
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for place in places:
            archive.addfile(_entry(place, tarfile.DIRTYPE, 0o755, 0))
        for path, (data, mode) in sorted(files.items()):
            archive.addfile(_entry(f"{name}/{path}", tarfile.REGTYPE, mode, len(data)), io.BytesIO(data))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=EPOCH) as stream:
        stream.write(plain.getvalue())
    return packed.getvalue()


def _entry(name: str, kind: bytes, mode: int, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.mtime = kind, mode, size, EPOCH
    return entry


def single_file(wrapper: Path) -> str:
    """A batch wrapper with its core in it, for factories and batch systems that take one file."""
    text = re.sub(r"^(?:here=|case \$here ).*\n", "", wrapper.read_text(), flags=re.MULTILINE)
    text = re.sub(r"^WRAPPERS=.*$", "WRAPPERS=''", text, flags=re.MULTILINE)
    sourced = re.compile(r'^(?:# shellcheck source=.*\n)?\. "\$WRAPPERS/lib/(\w+)\.bash".*$', re.MULTILINE)
    while match := sourced.search(text):
        part = (HERE.parent / "lib" / f"{match.group(1)}.bash").read_text().rstrip("\n")
        text = text[: match.start()] + part + text[match.end() :]
    return text


# ------------------------------------------------------------------------------------------------------------------ lock


def lock() -> None:
    """Write the lock files anew: every dependency at any depth, by the digest of the wheel for each architecture."""
    needs = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    for architecture in ARCHITECTURES:
        _lock(HERE / f"{architecture}.lock", needs, architecture)
    _lock(HERE / "build.lock", [BUILD_TOOL], ARCHITECTURES[0])


def _lock(goal: Path, needs: Sequence[str], architecture: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        _download(needs, architecture, Path(scratch))
        lines = sorted(
            f"{name.replace('_', '-').lower()}=={number} --hash=sha256:{sum_}"
            for sum_, (name, number) in ((sum_, path.name.split("-")[:2]) for sum_, path in _wheels(Path(scratch)).items())
        )
    goal.write_text("# Written by `python wrappers/release/build.py --lock`.\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
