"""What no file may do, as functions over source text that return what breaks it.

The bans catch honest mistakes at once; they are no jail for code that hides on purpose.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from itertools import pairwise

Finding = tuple[int, str]
Rule = Callable[[ast.AST], Iterator[Finding]]

BANNED_MODULES = {
    "pickle": "it executes what it reads",
    "cPickle": "it executes what it reads",
    "dill": "it executes what it reads",
    "shelve": "it executes what it reads",
    "marshal": "it crashes on bad input",
    "unittest.mock": "fakes are servers or ports",
    "mock": "fakes are servers or ports",
    "asyncio": "two threads, one selector",
    "pty": "it makes new sessions",
    "commands": "it is a shell",
}
BANNED_CALLS = {
    "eval": "it executes text",
    "exec": "it executes text",
    "compile": "it executes text",
    "__import__": "modules are named in the source",
    "os.system": "it is a shell",
    "os.popen": "it is a shell",
    "os.setsid": "a payload stays in the batch system's session",
    "os.putenv": "the environment is built, never edited",
    "subprocess.getoutput": "it is a shell",
    "subprocess.getstatusoutput": "it is a shell",
    "shutil.unpack_archive": "archives are read entry by entry",
    "tempfile.mktemp": "somebody else may take the name first",
    "ssl._create_unverified_context": "every server is verified",
    "ssl._create_default_https_context": "every server is verified",
    "ssl.wrap_socket": "it verifies nothing",
    "yaml.load": "use the safe loader",
    "yaml.unsafe_load": "use the safe loader",
    "yaml.full_load": "use the safe loader",
    "urllib.request.urlopen": "it trusts the environment's proxies",
    "urllib.request.urlretrieve": "it trusts the environment's proxies",
    "requests.get": "it trusts the environment; make an own one",
    "requests.put": "it trusts the environment; make an own one",
    "requests.post": "it trusts the environment; make an own one",
    "requests.head": "it trusts the environment; make an own one",
    "requests.delete": "it trusts the environment; make an own one",
    "requests.request": "it trusts the environment; make an own one",
}
BANNED_METHODS = {"extractall": "archives are read entry by entry"}
BANNED_NAMES = {"CERT_NONE": "every peer is verified"}
BANNED_KEYWORDS: dict[str, tuple[object, str]] = {
    "shell": (True, "no shell"),
    "verify": (False, "every server is verified"),
    "check_hostname": (False, "every server is verified"),
    "assert_hostname": (False, "every server is verified"),
    "start_new_session": (True, "a payload stays in the batch system's session"),
    "trust_env": (True, "the environment's proxies are not trusted"),
}
"""Keyword or attribute to the value that it must not have."""

EDITS = frozenset({"update", "setdefault", "pop", "clear", "popitem"})
SESSIONS = frozenset({"requests.Session", "requests.session", "requests.sessions.Session"})
SHELLS = frozenset(f"{folder}{name}" for folder in ("", "/bin/", "/usr/bin/") for name in ("sh", "bash", "dash", "zsh", "ksh"))


def findings(text: str) -> list[Finding]:
    """All breaks of the bans in a source text, as line with sentence."""
    tree = ast.parse(text)
    aliases = _aliases(tree)
    found: list[Finding] = []
    for node in ast.walk(tree):
        for rule in (_modules, _methods, _names, _values, _environment):
            found.extend(rule(node))
        found.extend(_calls(node, aliases))
        found.extend(_selects(node, aliases))
    found.extend(_sessions(tree, aliases))
    return sorted(set(found))


def shells(text: str) -> list[Finding]:
    """Argument lists that start a shell with ``-c``."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.List | ast.Tuple):
            words = [part.value if isinstance(part, ast.Constant) else None for part in node.elts]
            if any(first in SHELLS and second == "-c" for first, second in pairwise(words)):
                found.append((node.lineno, "starts a shell; only the far side does so, where the site says payload.shell"))
    return found


def sleeps(text: str) -> list[Finding]:
    """Calls of `time.sleep`, by whatever name."""
    tree = ast.parse(text)
    aliases = _aliases(tree)
    return [
        (node.lineno, "sleeps; wait for the event itself")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name) and _full_name(node, aliases) == "time.sleep"
    ]


def _aliases(tree: ast.Module) -> dict[str, str]:
    """Local name to what it stands for, after `import x as y` and `from x import y`."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def _full_name(expression: ast.expr, aliases: dict[str, str]) -> str:
    first, dot, rest = ast.unparse(expression).partition(".")
    return aliases.get(first, first) + dot + rest


def _modules(node: ast.AST) -> Iterator[Finding]:
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    for name in names:
        for banned, why in BANNED_MODULES.items():
            if name == banned or name.startswith(banned + "."):
                yield node.lineno, f"imports {name}: {why}"


def _calls(node: ast.AST, aliases: dict[str, str]) -> Iterator[Finding]:
    """Banned functions, called or handed on (`f = os.system`)."""
    if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
        name = _full_name(node, aliases)
        if name in BANNED_CALLS:
            yield node.lineno, f"uses {name}: {BANNED_CALLS[name]}"


def _selects(node: ast.AST, aliases: dict[str, str]) -> Iterator[Finding]:
    """`select.select` that watches anything; with three empty lists it is a pause."""
    if isinstance(node, ast.Call) and _full_name(node.func, aliases) == "select.select" and not _pauses(node):
        yield node.lineno, "uses select.select: it breaks at descriptors from 1024 on; use pilot.readiness"


def _pauses(call: ast.Call) -> bool:
    return all(isinstance(watched, ast.List) and not watched.elts for watched in call.args[:3])


def _methods(node: ast.AST) -> Iterator[Finding]:
    if isinstance(node, ast.Attribute) and node.attr in BANNED_METHODS:
        yield node.lineno, f"uses .{node.attr}: {BANNED_METHODS[node.attr]}"


def _names(node: ast.AST) -> Iterator[Finding]:
    names: list[str] = []
    if isinstance(node, ast.Attribute):
        names = [node.attr]
    elif isinstance(node, ast.Name):
        names = [node.id]
    elif isinstance(node, ast.ImportFrom):
        names = [alias.name for alias in node.names]
    for name in names:
        if name in BANNED_NAMES:
            yield node.lineno, f"uses {name}: {BANNED_NAMES[name]}"  # type: ignore[attr-defined]


def _values(node: ast.AST) -> Iterator[Finding]:
    """Banned values of keywords, attributes, `setattr`, dictionary entries for `**`."""
    pairs: list[tuple[str, ast.expr]] = []
    if isinstance(node, ast.Call):
        pairs = [(keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg]
        if ast.unparse(node.func) == "setattr" and len(node.args) == 3 and isinstance(node.args[1], ast.Constant):
            pairs.append((str(node.args[1].value), node.args[2]))
    elif isinstance(node, ast.Assign):
        pairs = [(target.attr, node.value) for target in node.targets if isinstance(target, ast.Attribute)]
    elif isinstance(node, ast.Dict):
        pairs = [(key.value, value) for key, value in zip(node.keys, node.values, strict=True) if _is_text(key)]  # type: ignore[union-attr]
    for name, value in pairs:
        banned = BANNED_KEYWORDS.get(name)
        if banned and isinstance(value, ast.Constant) and value.value == banned[0] and isinstance(value.value, bool | int):
            yield value.lineno, f"sets {name} to {value.value}: {banned[1]}"
        elif name == "shell" and isinstance(node, ast.Call) and _runs_processes(node) and not isinstance(value, ast.Constant):
            yield value.lineno, "computes shell=: no shell"
        elif name == "verify_mode" and isinstance(value, ast.Constant):
            yield value.lineno, "sets verify_mode to a number: every peer is verified"


def _is_text(key: ast.expr | None) -> bool:
    return isinstance(key, ast.Constant) and isinstance(key.value, str)


def _runs_processes(node: ast.Call) -> bool:
    return ast.unparse(node.func).rpartition(".")[2] in ("run", "Popen", "call", "check_call", "check_output")


def _environment(node: ast.AST) -> Iterator[Finding]:
    """Edits of the process's environment, which every child would inherit."""
    target: ast.expr | None = None
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        target = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in EDITS:
        target = node.func.value
    if target is not None and ast.unparse(target) in ("os.environ", "environ", "os.environb"):
        yield node.lineno, "edits os.environ: the environment of a child is built, never edited"  # type: ignore[attr-defined]


def _sessions(tree: ast.Module, aliases: dict[str, str]) -> Iterator[Finding]:
    """`requests` sessions that are not told, in the same function, to distrust the environment."""
    for scope in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))]:
        distrustful = _distrustful(scope)
        for node in _own_nodes(scope):
            value, names = _made(node)
            if isinstance(value, ast.Call) and _full_name(value.func, aliases) in SESSIONS and not names & distrustful:
                yield value.lineno, "makes a requests session without `.trust_env = False` beside it"
        if isinstance(scope, ast.ClassDef) and any(_full_name(base, aliases) in SESSIONS for base in scope.bases):
            told = {name for function in scope.body for name in _distrustful(function)}
            if "self" not in told:
                yield scope.lineno, "is a requests session without `self.trust_env = False`"


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope without those of the functions inside it."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield from _own_nodes(child)


def _distrustful(scope: ast.AST) -> set[str]:
    """What is told `.trust_env = False` in a scope."""
    return {
        ast.unparse(target.value)
        for node in _own_nodes(scope)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is False
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr == "trust_env"
    }


def _made(node: ast.AST) -> tuple[ast.expr | None, set[str]]:
    """An expression with the names that it is bound to; bare calls have none."""
    if isinstance(node, ast.Assign):
        return node.value, {ast.unparse(target) for target in node.targets}
    if isinstance(node, ast.AnnAssign):
        return node.value, {ast.unparse(node.target)}
    if isinstance(node, ast.withitem):
        return node.context_expr, {ast.unparse(node.optional_vars)} if node.optional_vars else set()
    if isinstance(node, ast.Return | ast.Expr):
        return node.value, set()
    return None, set()
