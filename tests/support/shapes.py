"""The house rules on the shape of a file, as functions over source text."""

from __future__ import annotations

import ast
import re

MAX_LINES = 400
FRESH_CONTAINERS = frozenset({"dict", "list", "set", "defaultdict", "deque", "OrderedDict", "Counter", "WeakValueDictionary", "bytearray"})
STATEFUL_CALLS = frozenset({"Lock", "RLock", "Event", "Condition", "Semaphore", "Queue", "SimpleQueue", "local", "Session", "ContextVar"})
MUTATORS = frozenset(
    {
        *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "appendleft"),
        *("update", "setdefault", "popitem", "add", "discard", "intersection_update"),
    }
)
MEMORIES = frozenset({"cache", "lru_cache"})


def module_state(text: str) -> list[str]:
    """Module-level state: locks and the like, empty containers (made to be filled), mutated constants, `global`, caches."""
    tree = ast.parse(text)
    broken = [f"line {node.lineno}: global {', '.join(node.names)}" for node in ast.walk(tree) if isinstance(node, ast.Global)]
    containers: set[str] = set()
    for statement in tree.body:
        for name, value in _bindings(statement):
            last = ast.unparse(value.func).rpartition(".")[2] if isinstance(value, ast.Call) else ""
            if last in STATEFUL_CALLS:
                broken.append(f"line {statement.lineno}: {name} is a module-level {last}")
            elif _is_empty(value, last):
                broken.append(f"line {statement.lineno}: {name} is an empty module-level container, so it will be filled")
            elif last in FRESH_CONTAINERS or isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp):
                containers.add(name)
    broken += [f"line {line}: mutates the module-level {name}" for line, name in _mutations(tree, containers)]
    return broken + _memories(tree)


def _bindings(statement: ast.stmt) -> list[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        return [(target.id, statement.value) for target in statement.targets if isinstance(target, ast.Name) and target.id != "__all__"]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        return [(statement.target.id, statement.value)]
    return []


def _is_empty(value: ast.expr, called: str) -> bool:
    if isinstance(value, ast.Call):
        # defaultdict(list) has an argument that is no content; dict(a=1) or set("ab") have content.
        return called in FRESH_CONTAINERS and not value.keywords and (not value.args or called == "defaultdict")
    return (isinstance(value, ast.Dict) and not value.keys) or (isinstance(value, ast.List) and not value.elts)


def _mutations(tree: ast.Module, names: set[str]) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        target: ast.expr | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            target = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            target = node.func.value
        if isinstance(target, ast.Name) and target.id in names:
            found.append((node.lineno, target.id))
    return found


def _memories(tree: ast.Module) -> list[str]:
    return [
        f"line {decorator.lineno}: {node.name} keeps results in a module-level cache"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if ast.unparse(decorator).partition("(")[0].rpartition(".")[2] in MEMORIES
    ]


def file_shape(text: str) -> list[str]:
    """Length, presence of a docstring, and a first docstring line that says one thing."""
    broken = []
    lines = text.count("\n")
    if lines > MAX_LINES:
        broken.append(f"has {lines} lines, at most {MAX_LINES} are allowed; split it")
    first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    if not first:
        broken.append("has no docstring that says what it is")
    # What comes after a colon or comma explains the one thing; "between A and B" is one place.
    subject = re.split(r"[:;,(]| that | which | between ", first, maxsplit=1)[0]
    if re.search(r"\band\b", subject):
        broken.append(f"is two things, says its first line: {first!r}; split it, or say it better")
    return broken


def tests_without_rule(text: str) -> list[str]:
    """Test functions without a docstring."""
    return [
        f"line {node.lineno}: {node.name} does not say its rule"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]


def exit_codes_defined(text: str) -> list[int]:
    """Values given to `exit_code` in class bodies."""
    return [
        value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        for name, value in _bindings(statement)
        if name == "exit_code" and isinstance(value, ast.Constant) and isinstance(value.value, int)
    ]
