"""The layers of the design hold for every file, as do the house rules on a file's shape."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from pilot.errors import ALL_ERRORS, PilotError
from tests.support import layers, shapes

ROOT = layers.ROOT
MODULES = layers.sources_of()
FILES = sorted(path for folder in ("pilot", "tests", "wrappers") for path in (ROOT / folder).rglob("*.py"))
STANDARD_LIBRARY = frozenset(sys.stdlib_module_names)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ------------------------------------------------------------------------------------------------ the package


def test_pure_modules_are_pure() -> None:
    """Pure modules import no I/O, clock, process, network, randomness."""
    assert layers.impure_cores(MODULES) == []


def test_layers_hold() -> None:
    """Imports go errors, model ← cores ← ports ← adapters, never across capabilities; only assembly, cli see everything."""
    assert layers.layer_breaks(MODULES) == []


def test_identities_are_made_in_their_places_only() -> None:
    """Only the listed modules construct the types that stand for a proven identity."""
    assert layers.constructions(MODULES) == []


def test_imports_are_absolute() -> None:
    """No import starts with a dot."""
    assert layers.relative_imports(MODULES) == []


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("farside.") and name not in layers.FAR_SIDE_PURE])
def test_far_side_needs_the_standard_library_only(name: str) -> None:
    """The program under the owner's account runs on the site's plain python3: nothing but the standard library and itself."""
    assert layers.standard_library_only(MODULES[name], ("farside", "farside.*"), STANDARD_LIBRARY) == []


@pytest.mark.parametrize("name", MODULES)
def test_no_module_state(name: str) -> None:
    """No module keeps state: values are passed, so two of anything can live side by side."""
    assert shapes.module_state(MODULES[name]) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_shape(path: Path) -> None:
    """Each file is short, and its first line says the one thing it is."""
    assert shapes.file_shape(path.read_text("utf-8")) == []


def test_exit_codes_are_unique_and_allowed() -> None:
    """Exit codes are unique, in 64-113, and defined in one file, so that the reference page knows them all."""
    counts = Counter(kind.exit_code for kind in ALL_ERRORS)
    assert [code for code, count in counts.items() if count > 1] == []
    assert all(64 <= code <= 113 for code in counts)
    assert set(ALL_ERRORS) == {PilotError, *PilotError.__subclasses__()} - _defined_elsewhere()
    assert {name: codes for name, text in MODULES.items() if name != "errors" and (codes := shapes.exit_codes_defined(text))} == {}


def _defined_elsewhere() -> set[type[PilotError]]:
    """Subclasses made by other modules or tests that happen to be loaded; they define no code of their own."""
    return {kind for kind in PilotError.__subclasses__() if kind.__module__ != "pilot.errors"}


# -------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("path", [path for path in FILES if path.name.startswith("test_")], ids=name_of)
def test_each_test_says_its_rule(path: Path) -> None:
    """Each test has a docstring that says the rule it keeps."""
    assert shapes.tests_without_rule(path.read_text("utf-8")) == []


def test_test_files_have_unique_names() -> None:
    """Test files are told apart by their base names."""
    names = Counter(path.name for path in FILES if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []
    assert not list((ROOT / "tests").rglob("__init__.py"))


# ------------------------------------------------------------------------- the rules notice what they are for


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dispatch.wire", "import subprocess"),
        ("dispatch.wire", "from os import path"),
        ("execution.machine", "import time"),
        ("credentials.verify", "def f():\n    import urllib.request"),
        ("staging.plan", "x = open('f')"),
        ("staging.plan", "from datetime import datetime\nx = datetime.now()"),
        ("brandnew", "x = 1"),
    ],
)
def test_purity_rule_notices(name: str, text: str) -> None:
    """A planted import or call of the outside world is noticed in a pure module, and only there."""
    broken = layers.impure_cores({name: text})
    assert len(broken) == (0 if name == "brandnew" else 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model", "from pilot.dispatch import wire"),
        ("errors", "import pilot.config"),
        ("dispatch.wire", "from pilot.dispatch.https import X"),
        ("dispatch.wire", "from pilot.ports import Watch"),
        ("ports", "from pilot.dispatch.https import X"),
        ("dispatch.https", "from pilot.myproxy import client"),
        ("dispatch.https", "from pilot.flight import fly"),
        ("dispatch.https", "from pilot.config import Config"),
        ("dispatch.https", "import pilot.assembly"),
        ("identity.glexec", "from pilot.testbed import pki"),
        ("flight", "from pilot.dispatch.https import X"),
        ("flight", "from pilot.assembly import X"),
        ("execution.supervision", "import pilot.identity.glexec"),
        ("farside.supervisor", "from pilot.cli.main import main"),
    ],
)
def test_layer_rule_notices(name: str, text: str) -> None:
    """A planted import against the layers is noticed."""
    modules = {**dict.fromkeys(("dispatch.wire", "dispatch.https", "myproxy.client", "testbed.pki"), ""), name: text}
    assert len(layers.layer_breaks(modules)) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("assembly", "from pilot.dispatch.https import X\nfrom pilot.config import Y"),
        ("cli.main", "import pilot.assembly\nimport pilot.testbed.pki"),
        ("dispatch.https", "from pilot.dispatch import wire\nfrom pilot.ports import Y\nfrom pilot.tls import Z"),
        ("flight", "from pilot.execution.supervision import X\nfrom pilot.execution.machine import Y"),
        ("myproxy.source", "from pilot.credentials.names import X"),
    ],
)
def test_layer_rule_allows(name: str, text: str) -> None:
    """Imports along the layers are allowed."""
    assert layers.layer_breaks({"dispatch.wire": "", name: text}) == []


@pytest.mark.parametrize(
    "text",
    [
        "OwnerCredential(pem=1)",
        "model.ProxyIdentity(dn='x')",
        "class Fake(PilotCredential): pass",
        "OwnerCredential.__new__(OwnerCredential)",
        "partial(OwnerCredential, dn='x')",
        "msgspec.convert(OwnerCredential, {})",
    ],
)
def test_construction_rule_notices(text: str) -> None:
    """An identity made in the wrong place is noticed, whichever way it is made."""
    assert layers.constructions({"dispatch.https": text})


def test_construction_rule_allows_its_places() -> None:
    """The places that verify may make what they verified."""
    assert layers.constructions({"credentials.owner": "OwnerCredential(pem=1)", "credentials.admit": "ProxyIdentity(dn=1)"}) == []


@pytest.mark.parametrize(
    "text",
    [
        "CACHE = {}",
        "seen = []",
        "names: set[str] = set()",
        "TABLE = {'a': 1}\ndef f():\n    TABLE['b'] = 2",
        "TABLE = [1]\ndef f():\n    TABLE.append(2)",
        "import threading\nLOCK = threading.Lock()",
        "x = 1\ndef f():\n    global x\n    x = 2",
        "import functools\n@functools.lru_cache(maxsize=1)\ndef f(): ...",
        "from collections import defaultdict\nX = defaultdict(list)",
    ],
)
def test_state_rule_notices(text: str) -> None:
    """Module-level state is noticed."""
    assert len(shapes.module_state(text)) == 1


def test_state_rule_allows_constants() -> None:
    """Constant tables and containers inside functions are no state."""
    text = "T = {'a': 1}\nL = ['a']\nE = frozenset()\nN = ()\n__all__ = []\ndef f():\n    x = {}\n    x['a'] = T['a']\n    return x"
    assert shapes.module_state(text) == []


def test_shape_rule_notices() -> None:
    """A long file, one without docstring and one that is two things are noticed."""
    assert shapes.file_shape('"""One thing."""\n') == []
    assert len(shapes.file_shape('"""One thing."""\n' + "\n" * 400)) == 1
    assert len(shapes.file_shape("x = 1\n")) == 1
    assert len(shapes.file_shape('"""Names and numbers."""\n')) == 1


def test_other_rules_notice() -> None:
    """A relative import, a test without a rule, an exit code elsewhere, a foreign import of the far side are noticed."""
    assert layers.relative_imports({"a.b": "from . import c"})
    assert shapes.tests_without_rule("class T:\n    def test_x(self): pass")
    assert shapes.exit_codes_defined("class E(X):\n    exit_code = 99") == [99]
    assert layers.standard_library_only("import requests", (), STANDARD_LIBRARY)
    assert layers.standard_library_only("import pilot.model", ("farside.*",), STANDARD_LIBRARY)
    assert not layers.standard_library_only("import os, pilot.farside.x", ("farside.*",), STANDARD_LIBRARY)
