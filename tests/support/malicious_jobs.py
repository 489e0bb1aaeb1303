"""Job definitions that nobody may run, by name: each is one field of a good definition, or one byte of its text, gone bad."""

from __future__ import annotations

import json
from collections.abc import Iterator

GOOD: dict[str, object] = {
    "StatusCode": 0,
    "PandaID": 5,
    "attemptNr": 1,
    "prodUserID": "/DC=test/DC=example/OU=People/CN=Alice Analysis",
    "prodSourceLabel": "user",
    "transformation": "/bin/sh",
    "jobPars": "-c true",
    "inFiles": "in.txt",
    "scopeIn": "testbed",
    "GUID": "g-1",
    "fsize": "4",
    "checksum": "ad:00000001",
    "ddmEndPointIn": "TESTBED",
    "outFiles": "out.txt,log.tgz",
    "scopeOut": "testbed",
    "ddmEndPointOut": "TESTBED,TESTBED",
    "logFile": "log.tgz",
    "scopeLog": "testbed",
    "logGUID": "g-2",
    "maxWalltime": 60,
    "maxCpuCount": 60,
    "minRamCount": 100,
    "maxDiskCount": 100,
    "coreCount": 1,
    "taskID": 7,
}
"""A definition that is accepted."""

BAD_NAMES = {
    "parent": "..",
    "here": ".",
    "up": "../x",
    "far-up": "../../../../etc/cron.d/x",
    "down-up": "a/../../x",
    "absolute": "/etc/passwd",
    "slash": "a/b",
    "hidden": ".ssh",
    "proxy": ".x509_proxy",
    "option": "-rf",
    "long-option": "--output=/etc/passwd",
    "nul": "a\0b",
    "newline": "a\nb",
    "return": "a\rb",
    "tab": "a\tb",
    "escape": "a\x1b[2Jb",
    "delete": "a\x7fb",
    "c1-control": "a\x85b",
    "turned": "a\u202ecod.exe",
    "invisible": "a\u200bb",
    "line-separator": "a\u2028b",
    "no-break-blank": "a\u00a0b",
    "byte-order": "\ufeffa",
    "tag": "a\U000e0041b",
    "long": "x" * 256,
    "long-in-bytes": "\u00e9" * 128,
    "own-stdout": "payload.stdout",
    "own-stderr": "payload.stderr",
    "own-secrets": "panda_secrets.json",
}
BAD_WORDS = {
    "parent": "..",
    "up": "../x",
    "slash": "a/b",
    "absolute": "/x",
    "hidden": ".x",
    "option": "-x",
    "newline": "a\nb",
    "nul": "a\0b",
    "blank": "a b",
    "semicolon": "a;id",
    "dollar": "$(id)",
    "backtick": "`id`",
    "pipe": "a|sh",
    "ampersand": "a&b",
    "url": "https://evil.example/x",
    "percent": "%2e%2e%2f",
    "query": "a?b=c",
    "fragment": "a#b",
    "at": "u@h",
    "backslash": "a\\b",
    "unicode": "\u0430bc",
    "long": "x" * 300,
}
BAD_URLS = {
    "file": "file:///etc/passwd",
    "ftp": "ftp://h/x",
    "gopher": "gopher://h/x",
    "data": "data://x",
    "javascript": "javascript://x",
    "ext": "ext://sh",
    "upper": "FILE:///etc/passwd",
    "root": "root://h//x",
    "user": "https://user:pw@h/x",
    "no-host": "https:///x",
    "no-path": "https://h",
    "no-name": "https://h/",
    "up-name": "https://h/..",
    "encoded-up": "https://h/%2e%2e",
    "encoded-slash": "https://h/a%2f..%2fb",
    "hidden-name": "https://h/.bashrc",
    "option-name": "https://h/-rf",
    "blank": "https://h/a b",
    "newline": "https://h/a\nb",
    "nul": "https://h/a\0b",
    "port": "https://h:x/a",
    "unicode-host": "https://\u0435vil/x",
    "own-name": "https://h/payload.stdout",
}
BAD_NUMBERS = {
    "negative": -1,
    "huge": 10**25,
    "text": "lots",
    "float": 1.5,
    "exponent": "1e3",
    "hex": "0x10",
    "true": True,
    "list": [1],
    "object": {"a": 1},
    "digits": "\u0661\u0662",
    "minus-text": "-5",
    "underscore": "1_000",
}
WRONG_TYPES = {"list": ["a"], "object": {"a": "b"}, "true": True, "float": 1.5}
TEXT_FIELDS = ("prodUserID", "prodSourceLabel", "transformation", "jobPars", "inFiles", "outFiles", "logFile", "scopeOut")
NUMBER_FIELDS = ("attemptNr", "maxWalltime", "maxCpuCount", "minRamCount", "maxDiskCount", "coreCount")


def bad_fields() -> Iterator[tuple[str, dict[str, object]]]:
    """Name of each definition with what is changed in the good one."""
    for name, bad in BAD_NAMES.items():
        yield f"input-{name}", {"inFiles": bad}
        yield f"output-{name}", {"outFiles": f"{bad},log.tgz"}
        yield f"log-{name}", {"logFile": bad, "outFiles": f"out.txt,{bad}"}
    yield from _bad_words()
    yield from _bad_numbers()
    for field in TEXT_FIELDS:
        for name, wrong in WRONG_TYPES.items():
            yield f"{field}-{name}", {field: wrong}
    yield from _missing()
    yield from _bad_contents()
    yield from _not_supported()
    yield from _lists_that_do_not_fit()


def _bad_words() -> Iterator[tuple[str, dict[str, object]]]:
    for name, bad in BAD_WORDS.items():
        for field in ("scopeIn", "scopeOut", "scopeLog", "GUID", "logGUID", "ddmEndPointIn"):
            yield f"{field}-{name}", {field: bad}
        yield f"ddmEndPointOut-{name}", {"ddmEndPointOut": f"{bad},TESTBED"}
        yield f"class-{name}", {"prodSourceLabel": bad}
    for name, bad in BAD_URLS.items():
        yield f"transformation-{name}", {"transformation": bad}


def _bad_numbers() -> Iterator[tuple[str, dict[str, object]]]:
    for field in NUMBER_FIELDS:
        for name, bad in BAD_NUMBERS.items():
            yield f"{field}-{name}", {field: bad}
    for name, bad in BAD_NUMBERS.items():
        if isinstance(bad, int | str) and bad is not True:
            yield f"fsize-{name}", {"fsize": str(bad)}
    yield "id-negative", {"PandaID": -5}
    yield "id-huge", {"PandaID": 2**63}
    yield "id-shell", {"PandaID": "5;id"}


def _missing() -> Iterator[tuple[str, dict[str, object]]]:
    for field in ("prodUserID", "prodSourceLabel", "transformation", "attemptNr", "PandaID"):
        for name, nothing in (("missing", None), ("null", "NULL"), ("empty", "")):
            yield f"{field}-{name}", {field: nothing}


CONTENTS = {
    "jobPars": {"huge": "x" * 600_000, "nul": "a\0b", "quote": "-c 'oh", "quote-2": '-c "oh', "escape": "a\\"},
    "prodUserID": {"huge": "/CN=" + "x" * 2000, "newline": "/CN=a\n/CN=b", "nul": "/CN=a\0", "escape": "/CN=\x1b[2J"},
    "checksum": {"word": "ad:xyz", "long": "ad:123456789", "scheme": "sha:00", "shell": "ad:$(id)", "short-md5": "md:abc"},
    "secrets": {
        "array": "[]",
        "no-json": "{",
        "twice": '{"a": 1, "a": 2}',
        "deep": "[" * 99,
        "huge": '{"a": "' + "x" * 200_000 + '"}',
    },
    "container_name": {"option": "--bind /:/host", "dollar": "docker://$(id)", "newline": "docker://a\nb", "plain": "docker://debian:12"},
    "debug": {"word": "maybe"},
    "myproxy": {"user": "u@h:1", "port": "h:99999", "path": "h:1/x", "blank": "h 1", "option": "-h"},
    "myproxyTokenRenewal": {
        "url": "https://evil.example/x",
        "host": "//evil.example/x",
        "up": "/a/../b",
        "query": "/a?b",
        "blank": "/a b",
    },
}
"""Field to bad contents by name."""


def _bad_contents() -> Iterator[tuple[str, dict[str, object]]]:
    for field, contents in CONTENTS.items():
        for name, bad in contents.items():
            yield f"{field}-content-{name}", {"myproxy": "localhost:7512" if field == "myproxyTokenRenewal" else "", field: bad}


def _not_supported() -> Iterator[tuple[str, dict[str, object]]]:
    for name in ("eventService", "eventServiceMerge", "isHPO", "cloneJob"):
        yield f"feature-{name}", {name: "True"}
    for name in ("preprocess", "postprocess", "coprocess"):
        yield f"feature-{name}", {name: {"command": "/bin/sh", "args": "-c id"}}
    yield "feature-writeToFile", {"writeToFile": "../../.bashrc:in.txt"}


def _lists_that_do_not_fit() -> Iterator[tuple[str, dict[str, object]]]:
    alone: dict[str, object] = {"fsize": "", "GUID": "", "scopeIn": "", "checksum": "", "ddmEndPointIn": ""}
    yield "twice-in", {"inFiles": "a,a", **alone}
    yield "twice-out", {"outFiles": "a,a,log.tgz", "scopeOut": "", "ddmEndPointOut": ""}
    yield "in-and-out", {"inFiles": "out.txt"}
    yield "too-few-sizes", {"inFiles": "a,b"}
    yield "too-many-scopes", {"scopeOut": "a,b,c"}
    yield "too-many-files", {"inFiles": ",".join(f"f{number}" for number in range(10_001)), **alone}
    many = ",".join(["TESTBED"] * 2_500)
    yield "too-long-a-list", {"inFiles": ",".join("f" * 200 + str(number) for number in range(2_500))} | alone | {"ddmEndPointIn": many}
    yield "unknown-endpoint", {"ddmEndPointIn": "ELSEWHERE"}


def bad_texts() -> dict[str, bytes]:
    """Name of each reply that is no definition at all, with its bytes."""
    good = json.dumps(GOOD)
    return {
        "twice-a-name": good.replace('"PandaID": 5', '"PandaID": 5, "PandaID": 6').encode(),
        "twice-the-owner": good.replace('"prodUserID"', '"prodUserID": "/CN=other", "prodUserID"', 1).encode(),
        "surrogate": good.replace("-c true", "\\ud800").encode(),
        "surrogate-name": good.replace('"taskID"', '"\\udc00"').encode(),
        "nan": good.replace('"coreCount": 1', '"coreCount": NaN').encode(),
        "infinity": good.replace('"coreCount": 1', '"coreCount": 1e999').encode(),
        "deep": good.replace('"taskID": 7', '"taskID": ' + "[" * 60 + "]" * 60).encode(),
        "very-deep": good.replace('"taskID": 7', '"taskID": ' + '{"a":' * 100_000).encode(),
        "long-number": good.replace('"taskID": 7', '"taskID": ' + "9" * 5000).encode(),
        "not-utf-8": good.encode().replace(b"-c true", b"\xff\xfe"),
        "utf-16": good.encode("utf-16"),
        "cut-off": good.encode()[:-5],
        "trailing": good.encode() + b"{}",
        "comment": good.encode().replace(b"{", b"{/* */", 1),
        "huge": good.replace("-c true", "x" * 2_000_000).encode(),
    }
