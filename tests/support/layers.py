"""The rules of the architecture, as functions over source text that return what breaks them.

A tree of sources is a map from dotted module name to text; each rule returns sentences, empty if it is kept.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Sources = Mapping[str, str]

CAPABILITIES = frozenset(
    {"credentials", "dispatch", "myproxy", "identity", "farside", "staging", "execution", "journal", "slot", "selfcheck"}
)

CONTRACTS = ("*.*_contract",)
"""Always pure, whatever EFFECTS says of their neighbours."""

EFFECTS = (
    # Modules of capabilities that touch the outside world, or stand on ones that do. All others are pure.
    "credentials.bearer",
    "credentials.files",
    "credentials.trust",
    "credentials.admit",
    "credentials.own",
    "credentials.owner",
    "credentials.renewal",
    "dispatch.connection",
    "dispatch.directory",
    "dispatch.https",
    "dispatch.lean",
    "dispatch.shared_files",
    "dispatch.troubles",
    "myproxy.channel",
    "myproxy.client",
    "myproxy.conversation",
    "myproxy.failures",
    "myproxy.opening",
    "myproxy.pam_verifier",
    "myproxy.source",
    "myproxy.unavailable",
    "identity.*",
    "execution.renewal",
    "execution.supervision",
    "execution.sampler",
    "journal.*",
    "selfcheck.*",
    "slot.probe",
)

FAR_SIDE_PURE = ("farside", "farside.protocol")
"""In `farside` it is the other way round: it is the program under the owner's account, so all but these are effects."""

PURE_AT_TOP = frozenset(
    {
        *("", "errors", "secret", "identities", "model", "isolation", "ports"),
        *("config_sections", "config_types", "config_site", "config_slot", "config_queue"),
        *("config_fields", "config_checks", "config_advice", "config_yaml"),
    }
)
FOUNDATION = frozenset({"", "errors", "model", "secret", "identities"})
SHARED = frozenset({"tls", "watch", "readiness", "log", "retry"})
"""Adapters at the top that adapters of every capability may use."""

TESTBED_USES = ("credentials.trust",)
"""Adapters that the testbed's servers share with the pilot: they verify clients by the same CA directory."""

IDENTITY_USES = ("farside.trees",)
"""Adapters that the gateways share with the far side: trees that payloads made are removed in one way only."""

ORCHESTRATION = frozenset(
    {
        *("flight", "flight_notes", "delivery", "shift", "heartbeat", "sources", "verdict", "retry", "watch", "log", "renewal"),
        *("execution.renewal", "execution.supervision"),
    }
)
CONFIGURATION = ("config", "config_*")
SEE_EVERYTHING = ("assembly", "assembly_*", "cli", "cli.*", "__main__")

IMPURE_IMPORTS = frozenset(
    {
        *("time", "random", "secrets", "uuid", "tenacity"),
        *("os", "pathlib", "shutil", "tempfile", "glob", "fcntl", "io", "mmap", "tarfile", "zipfile", "sqlite3", "platform", "psutil"),
        *("pwd", "grp", "getpass", "locale", "resource", "sys", "syslog", "termios", "tty", "ctypes"),
        *("socket", "socketserver", "ssl", "http", "urllib.request", "urllib3", "requests", "ftplib", "smtplib"),
        *("subprocess", "multiprocessing", "threading", "concurrent", "queue", "signal", "select", "selectors", "asyncio"),
        *("logging", "warnings", "importlib", "inspect", "runpy", "contextvars"),
    }
)
"""Clock, randomness; files, machine; network; processes, threads, waiting; effects by the back door."""

IMPURE_CALLS = frozenset({"open", "print", "input"})
CLOCK_METHODS = frozenset({"now", "utcnow", "today"})

IDENTITY_TYPES = {
    "BearerToken": ("credentials.bearer",),
    "PilotCredential": ("credentials.admit", "credentials.own"),
    "ProxyIdentity": ("credentials.admit",),
    "TokenIdentity": ("credentials.bearer",),
    "OwnerCredential": ("credentials.owner",),
    "NoCredential": ("sources",),
    "FarSideAccount": ("identity.*",),
}
"""Type to the only modules that may construct it (DESIGN: types make the order)."""


def sources_of(package: Path = ROOT / "pilot") -> dict[str, str]:
    """All modules of the package by dotted name without the leading ``pilot.``; the package itself is ``""``."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text("utf-8")
    return found


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def capability(name: str) -> str:
    """The capability that a module belongs to; empty for others."""
    first = name.partition(".")[0]
    return first if first in CAPABILITIES else ""


def is_pure(name: str) -> bool:
    owner = capability(name)
    if owner == "farside":
        return name in FAR_SIDE_PURE
    if owner:
        return matches(name, CONTRACTS) or not matches(name, EFFECTS)
    return name in PURE_AT_TOP


def imports(text: str, modules: Sources) -> Iterator[tuple[int, str, bool]]:
    """Line, module, whether ours, of each import; `from pilot.x import y` counts as `pilot.x.y` where that is a module."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [_deepest(node.module, alias.name, modules) for alias in node.names]
        for name in names:
            ours = name == "pilot" or name.startswith("pilot.")
            yield node.lineno, name.removeprefix("pilot").removeprefix(".") if ours else name, ours


def _deepest(module: str, name: str, modules: Sources) -> str:
    inner = f"{module}.{name}"
    return inner if inner.removeprefix("pilot.") in modules else module


def type_checking_only(text: str) -> set[int]:
    """Lines inside `if TYPE_CHECKING:`: such imports do not exist at run time."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            lines.update(line for child in node.body for line in range(child.lineno, (child.end_lineno or child.lineno) + 1))
    return lines


def impure_cores(modules: Sources) -> list[str]:
    """Pure modules that import or call I/O, clock, process, network, randomness, logging."""
    broken = []
    for name, text in modules.items():
        if not is_pure(name):
            continue
        hidden = type_checking_only(text)
        for line, imported, ours in imports(text, modules):
            if not ours and line not in hidden and _impure(imported):
                broken.append(f"{name}:{line}: a pure module imports {imported}; move it out, or list the module in EFFECTS")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and _impure_call(node):
                broken.append(f"{name}:{node.lineno}: a pure module calls {ast.unparse(node.func)}; make its result a parameter")
    return broken


def _impure(module: str) -> bool:
    return module in IMPURE_IMPORTS or module.partition(".")[0] in IMPURE_IMPORTS


def _impure_call(node: ast.Call) -> bool:
    if isinstance(node.func, ast.Name):
        return node.func.id in IMPURE_CALLS
    return isinstance(node.func, ast.Attribute) and node.func.attr in CLOCK_METHODS and "date" in ast.unparse(node.func.value)


def layer_breaks(modules: Sources) -> list[str]:
    """Imports among our own modules that go against the layers."""
    broken: dict[str, None] = {}
    for name, text in modules.items():
        for line, imported, ours in imports(text, modules):
            if ours and (why := _forbidden(name, imported)):
                broken[f"{name}:{line}: imports {imported}; {why}"] = None
    return list(broken)


def _forbidden(name: str, imported: str) -> str:
    """Why a module may not import another of ours; empty if it may."""
    if matches(name, SEE_EVERYTHING) or name.partition(".")[0] == "testbed" == imported.partition(".")[0]:
        return ""
    for rule in (_reserved, _upward, _across):
        if why := rule(name, imported):
            return why
    return ""


def _reserved(name: str, imported: str) -> str:
    if matches(imported, SEE_EVERYTHING):
        return "only assembly and cli see everything, nothing sees them"
    if imported.partition(".")[0] == "testbed":
        return "only assembly and cli may use the testbed"
    if matches(imported, CONFIGURATION) and not matches(name, (*CONFIGURATION, "reference")):
        return "adapters take their own options, assembly maps the configuration to them"
    return ""


def _upward(name: str, imported: str) -> str:
    if name in FOUNDATION and imported not in FOUNDATION:
        return "errors and model stand below everything"
    if name == "ports" and not is_pure(imported):
        return "ports know no adapter"
    if is_pure(name) and name != "ports":
        if imported == "ports" and capability(name):
            return "pure cores stand below ports"
        if not is_pure(imported):
            return "pure modules stand on pure modules only"
    return ""


def _across(name: str, imported: str) -> str:
    adapter = bool(capability(imported)) and not is_pure(imported) and imported not in ORCHESTRATION
    if name in ORCHESTRATION and adapter:
        return "orchestration uses cores and ports, never an adapter"
    own = "credentials" if name == "tls" else name.partition(".")[0]
    if matches(imported, {"testbed": TESTBED_USES, "identity": IDENTITY_USES}.get(own, ())):
        return ""
    if adapter and own != capability(imported):
        return "adapters of one capability are not imported by others"
    if capability(name) and not is_pure(name) and imported in ORCHESTRATION - SHARED and capability(imported) != capability(name):
        return "adapters do not know the orchestration above them"
    return ""


def constructions(modules: Sources) -> list[str]:
    """Identity types constructed, or inherited from, where they must not be."""
    broken = []
    for name, text in modules.items():
        for node in ast.walk(ast.parse(text)):
            for kind in _identities(node):
                if not matches(name, IDENTITY_TYPES[kind]):
                    broken.append(f"{name}:{node.lineno}: makes {kind}, which only {', '.join(IDENTITY_TYPES[kind])} may")
    return broken


def _identities(node: ast.AST) -> list[str]:
    made: list[ast.expr] = []
    if isinstance(node, ast.Call):
        made = [node.func]
        if ast.unparse(node.func).rpartition(".")[2] in ("replace", "partial", "__new__", "convert"):
            made += node.args[:1]
    elif isinstance(node, ast.ClassDef):
        made = node.bases
    names = [ast.unparse(expression).rpartition(".")[2] for expression in made]
    return [name for name in names if name in IDENTITY_TYPES]


def relative_imports(modules: Sources) -> list[str]:
    """Imports with leading dots."""
    return [
        f"{name}:{node.lineno}: a relative import"
        for name, text in modules.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def standard_library_only(text: str, allowed: tuple[str, ...], known: frozenset[str]) -> list[str]:
    """Imports of a program that must run on a plain python3: anything but the standard library or `allowed` modules."""
    return [
        f"line {line}: imports {'pilot.' if ours else ''}{module}"
        for line, module, ours in imports(text, {})
        if (ours and not matches(module, allowed)) or (not ours and module.partition(".")[0] not in known)
    ]
