"""The verdicts of our verifier beside those of the tools that grid sites use."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from pilot.credentials.names import oneline, subject_hash
from pilot.credentials.values import CredentialRefusedError, VerifyOptions
from pilot.credentials.verify import verify_proxy
from pilot.testbed import pki
from pilot.testbed.pki import Credential, make_proxy
from tests.support.forging import World, forge, make_world, now

pytestmark = pytest.mark.needs("openssl")

NAMES = [
    x509.Name([x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "Test"), x509.NameAttribute(NameOID.COMMON_NAME, "host/a.example")]),
    x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "CH"), x509.NameAttribute(NameOID.COMMON_NAME, "  José   Núñez + Co ")]),
    x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, "A@B.example"), x509.NameAttribute(NameOID.USER_ID, "u1")]),
    x509.Name([x509.NameAttribute(NameOID.TITLE, "Dr"), x509.NameAttribute(NameOID.SERIAL_NUMBER, "12")]),
    x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_IDENTIFIER, "NTR"), x509.NameAttribute(NameOID.STREET_ADDRESS, "Rue 1")]),
    x509.Name(
        [
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(NameOID.COMMON_NAME, "both"), x509.NameAttribute(NameOID.USER_ID, "together")]
            )
        ]
    ),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def run(world: World, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "X509_CERT_DIR": str(world.authority.cert_dir),
        "X509_VOMS_DIR": str(world.authority.voms_dir),
    }
    return subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=30, check=False, stdin=subprocess.DEVNULL)


def openssl_accepts(world: World, path: Path) -> bool:
    directory = str(world.authority.cert_dir)
    options = ("-allow_proxy_certs", "-crl_check_all", "-CApath", directory, "-untrusted", str(path))
    return run(world, "openssl", "verify", *options, str(path)).returncode == 0


def we_accept(world: World, credential: Credential) -> bool:
    try:
        verify_proxy(credential.pem(), world.trust, now())
    except CredentialRefusedError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES, ids=[oneline(name) for name in NAMES])
def test_names_print_and_hash_as_in_openssl(world: World, tmp_path: Path, name: x509.Name) -> None:
    """One-line form and subject hash agree with the openssl program."""
    path = forge(world.robot, subject=name, info=None).write(tmp_path / "c.pem")
    shown = run(world, "openssl", "x509", "-in", str(path), "-noout", "-subject_hash", "-subject", "-nameopt", "compat").stdout
    assert shown.splitlines() == [subject_hash(name), f"subject={oneline(name)}"]


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_hashes_of_the_systems_authorities_agree() -> None:
    """Where the system has a hashed CA directory, every file name is the hash that we compute."""
    checked = 0
    for path in sorted(Path("/etc/ssl/certs").glob("????????.0")):
        cert = x509.load_pem_x509_certificate(path.read_bytes())
        assert subject_hash(cert.subject) == path.stem
        checked += 1
    if not checked:
        pytest.skip("the system has no hashed CA directory")


CHAINS: list[tuple[str, Callable[[World], Credential], bool]] = [
    ("full", lambda world: make_proxy(world.robot), True),
    ("limited", lambda world: make_proxy(world.robot, limited=True), True),
    ("two", lambda world: make_proxy(make_proxy(world.robot)), True),
    ("pathlen-0", lambda world: make_proxy(world.robot, path_length=0), True),
    ("numeric-cn", lambda world: make_proxy(world.authority.user(pki.BOB_DN)), True),
    ("with-attributes", lambda world: world.robot_proxy(), True),
    ("pathlen-exceeded", lambda world: make_proxy(make_proxy(world.robot, path_length=0)), False),
    ("expired", lambda world: make_proxy(world.robot, lifetime=timedelta(minutes=-1)), False),
    ("bad-signature", lambda world: forge(world.robot, signer=world.alice.key), False),
    ("issued-by-ca", lambda world: make_proxy(world.authority.credential), False),
    ("other-name", lambda world: forge(world.robot, subject=pki.name_of("/DC=test/CN=x")), False),
]


@pytest.mark.parametrize(("make", "accepted"), [case[1:] for case in CHAINS], ids=[case[0] for case in CHAINS])
def test_openssl_agrees_on_chains(world: World, tmp_path: Path, make: Callable[[World], Credential], accepted: bool) -> None:
    """openssl verify and our verifier say the same about a chain."""
    credential = make(world)
    assert openssl_accepts(world, credential.write(tmp_path / "p.pem")) is accepted
    assert we_accept(world, credential) is accepted


def test_openssl_agrees_on_revocation(tmp_path: Path) -> None:
    """Revocation of the end entity reaches its proxies."""
    world = make_world(tmp_path)
    proxy = make_proxy(world.alice)
    path = proxy.write(tmp_path / "p.pem")
    assert openssl_accepts(world, path)
    assert we_accept(world, proxy)
    world.authority.revoke(proxy)
    assert not openssl_accepts(world, path)
    assert not we_accept(world, proxy)


@pytest.mark.needs("globus")
@pytest.mark.parametrize(("limited", "kind"), [(False, "impersonation"), (True, "limited")])
def test_globus_reads_our_proxies(world: World, tmp_path: Path, limited: bool, kind: str) -> None:
    """grid-proxy-info knows the kind of our proxies, Globus verifies their chain with CRL and signing policy."""
    path = str(make_proxy(world.robot, limited=limited).write(tmp_path / "p.pem"))
    assert run(world, "grid-proxy-info", "-file", path, "-type").stdout.strip() == f"RFC 3820 compliant {kind} proxy"
    done = run(world, "grid-proxy-init", "-q", "-verify", "-cert", path, "-key", path, "-out", str(tmp_path / "sub.pem"))
    assert "Proxy Verify OK" in done.stdout, done


@pytest.mark.needs("globus")
@pytest.mark.parametrize(("option", "limited"), [("-rfc", False), ("-limited", True)])
def test_we_accept_proxies_of_globus(world: World, tmp_path: Path, option: str, limited: bool) -> None:
    """Proxies made by grid-proxy-init are accepted, told apart."""
    source = str(world.alice.write(tmp_path / "alice.pem"))
    out = tmp_path / "p.pem"
    done = run(world, "grid-proxy-init", "-q", option, "-cert", source, "-key", source, "-out", str(out))
    assert done.returncode == 0, done
    found = verify_proxy(out.read_bytes(), world.trust, now())
    assert (found.dn, found.limited) == (pki.ALICE_DN, limited)


@pytest.mark.needs("globus")
@pytest.mark.parametrize("option", ["-old", "-draft", "-independent"])
def test_we_refuse_other_kinds_of_proxies(world: World, tmp_path: Path, option: str) -> None:
    """Legacy, draft, independent proxies made by grid-proxy-init are refused by their kind."""
    source = str(world.alice.write(tmp_path / "alice.pem"))
    out = tmp_path / "p.pem"
    assert run(world, "grid-proxy-init", "-q", option, "-cert", source, "-key", source, "-out", str(out)).returncode == 0
    with pytest.raises(CredentialRefusedError) as caught:
        verify_proxy(out.read_bytes(), world.trust, now())
    assert "proxy-kind" in caught.value.codes


@pytest.mark.needs("voms-clients")
def test_voms_proxy_info_reads_our_attributes(world: World, tmp_path: Path) -> None:
    """VO, FQANs, server of our attribute certificates are shown, without a warning."""
    path = world.robot_proxy(["/testvo/Role=pilot/Capability=NULL", "/testvo"]).write(tmp_path / "p.pem")
    done = run(world, "voms-proxy-info", "-file", str(path), "-all")
    assert (done.returncode, done.stderr) == (0, "")
    for line in ("type      : RFC compliant proxy", "VO        : testvo", "uri       : voms.example.test:15000"):
        assert line in done.stdout
    assert [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("attribute")] == [
        "/testvo/Role=pilot/Capability=NULL",
        "/testvo",
    ]


@pytest.mark.needs("voms-clients")
def test_we_accept_attributes_of_voms(world: World, tmp_path: Path) -> None:
    """A proxy with attributes made by voms-proxy-fake is accepted."""
    robot, server = str(world.robot.write(tmp_path / "robot.pem")), str(world.voms.credential.write(tmp_path / "voms.pem"))
    out = tmp_path / "p.pem"
    done = run(
        world,
        "voms-proxy-fake",
        *("-rfc", "-path-length", "10", "-cert", robot, "-key", robot, "-certdir", str(world.authority.cert_dir)),
        *("-hostcert", server, "-hostkey", server, "-voms", "testvo", "-uri", "voms.example.test:15000"),
        *("-fqan", "/testvo/Role=pilot/Capability=NULL", "-fqan", "/testvo/Role=NULL/Capability=NULL", "-out", str(out)),
    )
    assert out.exists(), done
    found = verify_proxy(out.read_bytes(), world.trust, now(), VerifyOptions(require_attributes=True))
    assert (found.dn, found.vo, found.fqans) == (pki.ROBOT_DN, "testvo", ("/testvo/Role=pilot", "/testvo"))


def libvomsapi_accepts(world: World, path: Path) -> bool:
    """The verdict of the VOMS library itself (`VOMS_RetrieveFromFile` with full verification)."""
    library, libc = ctypes.CDLL("libvomsapi.so.1"), ctypes.CDLL(None)
    library.VOMS_Init.restype = libc.fopen.restype = ctypes.c_void_p
    library.VOMS_Init.argtypes = libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.VOMS_RetrieveFromFile.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
    library.VOMS_Destroy.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
    state = library.VOMS_Init(str(world.authority.voms_dir).encode(), str(world.authority.cert_dir).encode())
    file, error = libc.fopen(str(path).encode(), b"r"), ctypes.c_int(0)
    try:
        return bool(library.VOMS_RetrieveFromFile(file, 0, state, ctypes.byref(error)))
    finally:
        libc.fclose(file)
        library.VOMS_Destroy(state)


ATTRIBUTES: list[tuple[str, Callable[[World], bytes], bool]] = [
    ("good", lambda world: world.voms.attributes(world.robot, ["/testvo/Role=pilot"]), True),
    ("groups", lambda world: world.voms.attributes(world.robot, ["/testvo", "/testvo/a/Role=b"]), True),
    ("other-holder", lambda world: world.voms.attributes(world.alice, ["/testvo"]), False),
    ("expired", lambda world: world.voms.attributes(world.robot, ["/testvo"], lifetime=timedelta(minutes=-10)), False),
    ("other-vo", lambda world: world.voms.attributes(world.robot, ["/othervo"]), False),
    ("tampered", lambda world: world.voms.attributes(world.robot, ["/testvo/Role=pilot"]).replace(b"Role=pilot", b"Role=admin"), False),
]


@pytest.mark.needs("voms-clients")
@pytest.mark.parametrize(("make", "accepted"), [case[1:] for case in ATTRIBUTES], ids=[case[0] for case in ATTRIBUTES])
def test_libvomsapi_agrees_on_attributes(world: World, tmp_path: Path, make: Callable[[World], bytes], accepted: bool) -> None:
    """The VOMS library and our verifier say the same about attribute certificates."""
    proxy = make_proxy(world.robot, attributes=[make(world)])
    assert libvomsapi_accepts(world, proxy.write(tmp_path / "p.pem")) is accepted
    assert we_accept(world, proxy) is accepted
