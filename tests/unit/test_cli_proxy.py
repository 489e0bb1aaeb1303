"""The commands `pilot proxy show`, `pilot proxy verify`."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pilot.cli.main import main
from pilot.credentials.codes import CODES, FILE_REASONS
from pilot.errors import ProxyExpiredError, ProxyMissingError, ProxyUnsafeError, ProxyUntrustedError, RoleMissingError
from pilot.testbed import pki
from pilot.testbed.pki import Credential, make_proxy
from tests.support.forging import World, forge, make_world, now, usage
from tests.support.mutation import mutate

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def pilot(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `pilot proxy VERB FILE ...`; the environment names the world's directories. Nothing may appear on stderr."""
    monkeypatch.setenv("X509_CERT_DIR", str(world.authority.cert_dir))
    monkeypatch.setenv("X509_VOMS_DIR", str(world.authority.voms_dir))

    def run(verb: str, proxy: Credential | bytes | Path, *options: str) -> tuple[int, str]:
        path = tmp_path / "x509up" if not isinstance(proxy, Path) else proxy
        if not isinstance(proxy, Path):
            pki.write_private(path, proxy if isinstance(proxy, bytes) else proxy.pem())
        code = main(["proxy", verb, str(path), *options])
        told = capsys.readouterr()
        assert told.err == ""
        assert "PRIVATE" not in told.out
        return code, told.out

    return run


def test_a_good_proxy_is_accepted(world: World, pilot: Run) -> None:
    """Exit code 0; identity, VO, attributes, path, deciding files are told."""
    code, text = pilot("verify", world.robot_proxy(["/testvo/Role=pilot", "/testvo"]))
    assert code == 0
    for part in (": accepted", pki.ROBOT_DN, "testvo (voms.example.test:15000)", "/testvo/Role=pilot\n", "end entity", "authority", ".r0"):
        assert part in text


def test_a_good_proxy_as_json(world: World, pilot: Run) -> None:
    """The JSON form has the same facts, typed."""
    proxy = world.robot_proxy(limited=True)
    code, text = pilot("verify", proxy, "--json")
    told = json.loads(text)
    assert (code, told["accepted"], told["refusals"]) == (0, True, [])
    assert (told["identity"], told["subject"], told["type"]) == (pki.ROBOT_DN, proxy.dn, "limited proxy")
    assert told["attributes"][0]["fqans"] == ["/testvo/Role=pilot"]
    assert [part["kind"] for part in told["path"]] == ["limited proxy", "end entity", "authority"]
    assert told["not_after"].endswith("Z")
    assert any(name.endswith(".lsc") for name in told["files"])


def test_every_reason_is_listed(world: World, pilot: Run) -> None:
    """A refused proxy gives each code once, in both forms, with a non-zero exit code."""
    broken = forge(world.robot, signer=world.alice.key, key_usage=usage(key_encipherment=True), start=now() - timedelta(hours=2))
    code, text = pilot("verify", broken)
    assert code == ProxyUntrustedError.exit_code
    assert ": refused" in text
    again, told = pilot("verify", broken, "--json")
    found = json.loads(told)
    assert again == code
    assert (found["accepted"], {refusal["code"] for refusal in found["refusals"]}) == (False, {"bad-signature", "key-usage"})
    for refusal in found["refusals"]:
        assert refusal["code"] in text
        assert f"{refusal['position']}: {refusal['sentence']}" in text


def test_exit_codes_are_those_of_the_pilot(world: World, pilot: Run, tmp_path: Path) -> None:
    """Expired, untrusted, unsafe, missing, without the role: each has the exit code of the pilot's own error."""
    assert pilot("verify", world.robot_proxy(lifetime=timedelta(minutes=-1)))[0] == ProxyExpiredError.exit_code
    assert pilot("verify", b"nonsense")[0] == ProxyUntrustedError.exit_code
    assert pilot("verify", tmp_path / "none")[0] == ProxyMissingError.exit_code
    path = world.robot_proxy().write(tmp_path / "open")
    path.chmod(0o644)
    assert pilot("verify", path)[0] == ProxyUnsafeError.exit_code
    assert pilot("verify", world.robot_proxy(), "--require-role", "/testvo/Role=other")[0] == RoleMissingError.exit_code


def test_a_role_is_demanded_only_on_request(world: World, pilot: Run) -> None:
    """Without the option a proxy without attributes is good; with it exactly that attribute is needed."""
    plain = make_proxy(world.robot)
    assert pilot("verify", plain)[0] == 0
    code, text = pilot("verify", plain, "--require-role", "/testvo/Role=pilot", "--json")
    assert (code, [refusal["code"] for refusal in json.loads(text)["refusals"]]) == (RoleMissingError.exit_code, ["role"])
    assert pilot("verify", world.robot_proxy(), "--require-role", "/testvo/Role=pilot/Capability=NULL")[0] == 0


def test_flags_go_over_the_environment(world: World, pilot: Run, tmp_path: Path) -> None:
    """`--cert-dir`, `--voms-dir` name other directories; an empty one knows nobody."""
    proxy = world.robot_proxy()
    assert "unknown-authority" in pilot("verify", proxy, "--cert-dir", str(tmp_path))[1]
    assert "attributes-untrusted" in pilot("verify", proxy, "--voms-dir", str(tmp_path))[1]
    here = ("--cert-dir", str(world.authority.cert_dir), "--voms-dir", str(world.authority.voms_dir))
    assert pilot("verify", proxy, *here)[0] == 0


def test_lenient_tolerates_a_missing_list(tmp_path: Path, pilot: Run) -> None:
    """`--crl lenient` accepts an authority without revocation list; strict is the default."""
    other = make_world(tmp_path / "other")
    (other.authority.cert_dir / f"{other.authority.hash}.r0").unlink()
    there = ("--cert-dir", str(other.authority.cert_dir), "--voms-dir", str(other.authority.voms_dir))
    assert "crl-missing" in pilot("verify", other.robot_proxy(), *there)[1]
    assert pilot("verify", other.robot_proxy(), *there, "--crl", "lenient")[0] == 0


def test_legacy_proxies_only_on_request(world: World, pilot: Run) -> None:
    """`--legacy` accepts a legacy proxy, which is refused otherwise."""
    from tests.support.forging import child_name, cn

    legacy = forge(world.robot, info=None, subject=child_name(world.robot, cn("proxy")))
    assert "proxy-kind" in pilot("verify", legacy)[1]
    assert pilot("verify", legacy, "--legacy")[0] == 0


def test_the_time_can_be_given(world: World, pilot: Run) -> None:
    """`--now` judges as of another time, which needs a time zone."""
    proxy = world.robot_proxy(lifetime=timedelta(hours=1))
    later = f"{now() + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
    assert pilot("verify", proxy, "--now", later)[0] == ProxyExpiredError.exit_code


@pytest.mark.parametrize(
    "option",
    [
        ("--now", "2026-01-01T00:00:00"),
        ("--now", "soon"),
        ("--now", "0001-01-01T00:00:00+14:00"),
        ("--require-role", "pilot"),
        ("--crl", "none"),
    ],
)
def test_wrong_options_are_told(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be meant is wrong usage, with a sentence."""
    with pytest.raises(SystemExit) as caught:
        main(["proxy", "verify", "file", *option])
    assert caught.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_show_tells_without_verifying(world: World, pilot: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`show` describes a proxy that nobody would accept, needs no directories, says that nothing is verified."""
    monkeypatch.delenv("X509_CERT_DIR")
    expired = make_proxy(world.robot_proxy(lifetime=timedelta(minutes=-1)), limited=True)
    code, text = pilot("show", expired)
    assert code == 0
    for part in ("nothing is verified", "RFC 3820 proxy, limited", pki.ROBOT_DN, "testvo (voms.example.test:15000)", "/testvo/Role=pilot"):
        assert part in text
    told = json.loads(pilot("show", expired, "--json")[1])
    assert (told["verified"], told["identity"], told["troubles"]) == (False, pki.ROBOT_DN, [])
    assert [part["kind"] for part in told["path"]] == ["limited proxy", "proxy", "end entity"]
    assert "accepted" not in text


def test_show_escapes_what_a_terminal_could_obey(world: World, pilot: Run) -> None:
    """Control characters in attributes are shown, not sent."""
    wild = world.voms.attributes(world.robot, ["/testvo/Role=\x1b[31mred\n"])
    code, text = pilot("show", make_proxy(world.robot, attributes=[wild]))
    assert code == 0
    assert "\x1b" not in text
    assert "\\x1b[31mred\\n" in text


def test_no_input_makes_a_traceback(world: World, pilot: Run) -> None:
    """Whatever the file holds: an answer in order, known codes, no words on stderr."""
    chance = random.Random(7)
    good = make_proxy(world.robot_proxy(), limited=True).pem()
    for text in [b"", b"\xff" * 99, *(mutate(chance, good) for _ in range(60))]:
        code, told = pilot("verify", text, "--json")
        codes = {refusal["code"] for refusal in json.loads(told)["refusals"]}
        assert codes <= set(CODES) | set(FILE_REASONS)
        assert (code == 0) == (codes == set())
        assert json.loads(pilot("show", text, "--json")[1])["file"]


def test_odd_paths_are_told(world: World, pilot: Run, tmp_path: Path) -> None:
    """A directory, a link, a name that is no text: refused with a reason."""
    link = tmp_path / "link"
    link.symlink_to(world.robot_proxy().write(tmp_path / "file"))
    for path, reason in ((tmp_path, "not-regular"), (link, "link"), (Path(os.fsdecode(b"\xff")), "missing")):
        assert reason in pilot("verify", path)[1]
        assert json.loads(pilot("show", path, "--json")[1])["refusals"][0]["code"] == reason


def test_show_says_what_it_cannot_read(world: World, pilot: Run) -> None:
    """A broken part is told, the others are described."""
    code, text = pilot("show", forge(world.robot, info=b"garbage"))
    assert code == 0
    assert "not readable  certificate 0" in text
    assert "RFC 3820 proxy" in text
    assert f"{pki.ROBOT_DN}/CN=4711" in text
