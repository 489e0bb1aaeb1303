"""No file does what the project bans: shells, executed text, unverified peers, inherited trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import bans
from tests.support.layers import ROOT

FILES = sorted(path for folder in ("pilot", "tests", "wrappers") for path in (ROOT / folder).rglob("*.py"))
SHELL_ALLOWED = ("pilot/execution/command.py",)
"""Where the one listed exception is built: ``/bin/bash -c LINE`` for queues with payload.shell."""
ALLOWED = {
    "pilot/testbed/service.py": ("start_new_session", "a testbed that stays up after its command belongs to no batch job"),
    "tests/integration/test_isolation_levels_real.py": ("imports pty", "the pilot's terminal is kept from payloads, so one is needed"),
}
"""File to the one ban it may break, with the reason."""

SLEEP_ALLOWED = {
    "pilot/farside/courier.py": "back-off before the next try of a transfer: there is no event to wait for",
    "pilot/farside/sweep.py": "waits for the end of killed processes that are not its children",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_banned(path: Path) -> None:
    """The file breaks none of the bans, but for what is listed with its reason."""
    allowed, _ = ALLOWED.get(name_of(path), ("", ""))
    broken = [(line, sentence) for line, sentence in bans.findings(path.read_text("utf-8")) if not (allowed and allowed in sentence)]
    assert [f"{name_of(path)}:{line}: {sentence}" for line, sentence in broken] == []


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path).startswith("pilot/")], ids=name_of)
def test_no_shell_in_argument_lists(path: Path) -> None:
    """No argument list of the package starts a shell, but for the listed exception."""
    if name_of(path) not in SHELL_ALLOWED:
        assert bans.shells(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import subprocess\nsubprocess.run('x', shell=1)",
        "import subprocess\nsubprocess.Popen('x', shell=flag)",
        "import subprocess\nsubprocess.run('x', **{'shell': True})",
        "import os\nos.system('x')",
        "from os import system\nsystem('x')",
        "from os import system as s\ns('x')",
        "import os as o\no.popen('x')",
        "import os\nf = os.system",
        "import subprocess\nsubprocess.getoutput('x')",
        "eval('1')",
        "exec('1')",
        "compile('1', 'f', 'exec')",
        "__import__('x')",
        "import pickle",
        "from pickle import loads",
        "import marshal",
        "import shelve",
        "import asyncio",
        "archive.extractall('/x')",
        "import shutil\nshutil.unpack_archive('x')",
        "session.get('https://h', verify=False)",
        "session.verify = False",
        "import ssl\ncontext.verify_mode = ssl.CERT_NONE",
        "from ssl import CERT_NONE",
        "context.verify_mode = 0",
        "context.check_hostname = False",
        "f(check_hostname=False)",
        "setattr(context, 'check_hostname', False)",
        "import ssl\nssl._create_unverified_context()",
        "from unittest import mock",
        "import unittest.mock",
        "from unittest.mock import patch",
        "import requests\nrequests.get('https://h')",
        "from requests import post\npost('https://h')",
        "import requests\nsession = requests.Session()",
        "import requests\ndef f():\n    return requests.Session()",
        "import requests\nwith requests.Session() as s:\n    s.get('x')",
        "import requests\ndef f(other):\n    s = requests.Session()\n    other.trust_env = False",
        "from requests import Session\ns = Session()",
        "import requests\nclass S(requests.Session):\n    pass",
        "import requests\nsession.trust_env = True",
        "import urllib.request\nurllib.request.urlopen('https://h')",
        "import yaml\nyaml.load(text, Loader=L)",
        "import yaml\nyaml.unsafe_load(text)",
        "import os\nos.environ['X'] = 'y'",
        "from os import environ\nenviron.update(x)",
        "import os\nos.environ.setdefault('X', 'y')",
        "import tempfile\ntempfile.mktemp()",
        "import os\nos.setsid()",
        "import select\nselect.select([fd], [], [], 1)",
        "from select import select\nready, _, _ = select(watched, [], [], 1)",
        "import subprocess\nsubprocess.Popen(['x'], start_new_session=True)",
    ],
)
def test_ban_notices(text: str) -> None:
    """Each ban notices a planted sample."""
    assert bans.findings(text)


@pytest.mark.parametrize(
    "text",
    [
        "import subprocess\nsubprocess.run(['x'], shell=False, check=True)",
        "import requests\ndef f():\n    s = requests.Session()\n    s.trust_env = False\n    return s",
        "import requests\nclass C:\n    def f(self):\n        self.s = requests.Session()\n        self.s.trust_env = False",
        "import requests\nclass S(requests.Session):\n    def __init__(self):\n        super().__init__()\n        self.trust_env = False",
        "import yaml\nyaml.safe_load(text)",
        "import os\nx = os.environ.get('X')\ny = dict(os.environ)\ny['Z'] = '1'",
        "context.check_hostname = True",
        "import re\nre.compile('x')",
        "import select\nselect.select([], [], [], 0.01)",
        "from collections import ChainMap\nmachine.extract('x')",
        "x = {'shell': 'text'}",
        "section.shell = True if x else y",
        "Config(shell=flag)",
    ],
)
def test_ban_lets_good_code_pass(text: str) -> None:
    """Good code of a similar look passes."""
    assert bans.findings(text) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_sleeps(path: Path) -> None:
    """Nothing sleeps where an event can be waited for; the exceptions are listed with their reason."""
    if name_of(path) not in SLEEP_ALLOWED:
        assert bans.sleeps(path.read_text("utf-8")) == []


@pytest.mark.parametrize("text", ["import time\ntime.sleep(1)", "from time import sleep\nsleep(1)", "from time import sleep as s\nx = s"])
def test_sleep_rule_notices(text: str) -> None:
    """A planted sleep is noticed."""
    assert bans.sleeps(text)


def test_shell_rule_notices() -> None:
    """A planted `bash -c` is noticed in lists and tuples, a plain mention of bash is not."""
    assert bans.shells("run(['/bin/bash', '-c', line])")
    assert bans.shells("argv = ('sh', '-c', line)")
    assert not bans.shells("argv = ['/bin/bash', 'script.sh']")
