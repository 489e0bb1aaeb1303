"""TLS connections of the pilot against a server on loopback."""

from __future__ import annotations

import ctypes
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from pilot.model import PilotCredential, Secret
from pilot.testbed import pki
from pilot.testbed.pki import Authority, Credential, make_proxy
from pilot.tls import EndpointTrust, TlsSetupError, TlsUntrusted, check_server_chain, client_context, sealed_file


class Server:
    """A TLS server that tells each client the subjects of the chain that it showed."""

    def __init__(self, credential: Credential, cert_dir: Path, directory: Path, maximum: ssl.TLSVersion | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credential.write(directory / "server.pem"))
        context.load_verify_locations(capath=str(cert_dir))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
        if maximum:
            context.minimum_version = context.maximum_version = maximum
            context.set_ciphers("ALL:@SECLEVEL=0")
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            raw.settimeout(5)
            try:
                with self._context.wrap_socket(raw, server_side=True) as tls:
                    shown = tls.getpeercert(binary_form=True)
                    subject = x509.load_der_x509_certificate(shown).subject.rfc4514_string() if shown else "nobody"
                    tls.sendall(subject.encode())
            except OSError:
                raw.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@contextmanager
def serving(credential: Credential, authority: Authority, directory: Path, maximum: ssl.TLSVersion | None = None) -> Iterator[Server]:
    server = Server(credential, authority.cert_dir, directory, maximum)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path)


def talk(server: Server, trust: EndpointTrust, credential: PilotCredential | None = None, host: str = "localhost") -> str:
    """Connect as the pilot does; what the server says."""
    context = client_context(trust, credential)
    with socket.create_connection(("127.0.0.1", server.port), 5) as raw, context.wrap_socket(raw, server_hostname=host) as tls:
        check_server_chain(tls, trust)
        return tls.recv(1000).decode()


def grid(authority: Authority, **options: object) -> EndpointTrust:
    return EndpointTrust(kind="grid", ca_dir=str(authority.cert_dir), **options)  # type: ignore[arg-type]


def pilot_credential(authority: Authority) -> PilotCredential:
    proxy = make_proxy(authority.user(pki.ROBOT_DN))
    return PilotCredential(pem=Secret(proxy.pem()), path="/nowhere", key_ids=frozenset())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_good_server_is_accepted(authority: Authority, tmp_path: Path, host: str) -> None:
    """Name or address of the certificate are accepted."""
    with serving(authority.host(), authority, tmp_path) as server:
        assert talk(server, grid(authority), host=host) == "nobody"


def test_the_proxy_is_shown(authority: Authority, tmp_path: Path) -> None:
    """The server sees the proxy with its chain, though no file holds it."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with serving(authority.host(), authority, tmp_path) as server:
        said = talk(server, grid(authority), pilot_credential(authority))
    assert "Robot - Pilot Factory" in said
    assert said.startswith("CN=")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_wrong_host_is_refused(authority: Authority, tmp_path: Path) -> None:
    """A certificate for another host is refused in the handshake."""
    with (
        serving(authority.host("other.example", addresses=()), authority, tmp_path) as server,
        pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
    ):
        talk(server, grid(authority))


def test_an_unknown_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    """A server of a CA outside the directory is refused."""
    stranger = Authority.create(tmp_path / "stranger", "/DC=test/DC=example/CN=Other CA")
    with (
        serving(stranger.host(), authority, tmp_path) as server,
        pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"),
    ):
        talk(server, grid(authority))


def test_a_revoked_server_is_refused(authority: Authority, tmp_path: Path) -> None:
    """Revocation counts in both modes."""
    host = authority.host()
    authority.revoke(host)
    with serving(host, authority, tmp_path) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
            talk(server, grid(authority))
        with pytest.raises(TlsUntrusted, match="revoked"):
            talk(server, grid(authority, crl="lenient"))


def test_a_missing_revocation_list(authority: Authority, tmp_path: Path) -> None:
    """Strict refuses, lenient accepts an authority without a list."""
    (authority.cert_dir / f"{authority.hash}.r0").unlink()
    with serving(authority.host(), authority, tmp_path) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="CRL"):
            talk(server, grid(authority))
        assert talk(server, grid(authority, crl="lenient")) == "nobody"


def test_a_server_outside_the_signing_policy_is_refused(tmp_path: Path) -> None:
    """OpenSSL does not know signing policies; the check after the handshake does."""
    narrow = Authority.create(tmp_path, subjects="/DC=test/DC=example/OU=People/*")
    with serving(narrow.host(), narrow, tmp_path) as server, pytest.raises(TlsUntrusted, match="signing policy"):
        talk(server, grid(narrow))


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
def test_old_protocol_versions_are_refused(authority: Authority, tmp_path: Path) -> None:
    """TLS below 1.2 is refused."""
    with serving(authority.host(), authority, tmp_path, ssl.TLSVersion.TLSv1_1) as server, pytest.raises(ssl.SSLError):
        talk(server, grid(authority))


def test_a_bundle_is_used_for_system_trust(authority: Authority, tmp_path: Path) -> None:
    """With system trust the bundle decides, nothing else."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority.credential.cert_pem())
    with serving(authority.host(), authority, tmp_path) as server:
        assert talk(server, EndpointTrust(kind="system", ca_bundle=str(bundle))) == "nobody"
        with pytest.raises(ssl.SSLCertVerificationError):
            talk(server, EndpointTrust(kind="system"))


def test_the_environment_adds_no_trust(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSL_CERT_FILE and SSL_CERT_DIR change nothing."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority.credential.cert_pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(authority.cert_dir))
    with serving(authority.host(), authority, tmp_path) as server, pytest.raises(ssl.SSLCertVerificationError):
        talk(server, EndpointTrust(kind="system"))


def test_a_context_that_cannot_be_made(authority: Authority) -> None:
    """Missing directories, missing bundles, broken credentials are told before connecting, without the secret."""
    for trust in (EndpointTrust(ca_dir="/nonexistent"), EndpointTrust(), EndpointTrust(kind="system", ca_bundle="/nonexistent")):
        with pytest.raises(TlsSetupError, match="cannot load the trusted authorities"):
            client_context(trust, None)
    broken = PilotCredential(pem=Secret(b"canary-secret"), path="/proxy", key_ids=frozenset())
    with pytest.raises(TlsSetupError, match="cannot load the pilot proxy /proxy") as caught:
        client_context(grid(authority), broken)
    assert "canary" not in str(caught.value)


def test_the_sealed_file_cannot_be_changed() -> None:
    """The credential in memory is sealed, gone afterwards, and readable though the process is not dumpable."""
    with sealed_file(b"secret") as path:
        assert Path(path).read_bytes() == b"secret"
        with pytest.raises(OSError), Path(path).open("wb") as file:
            file.write(b"x")
    assert not Path(path).exists()


def test_the_credential_loads_in_a_process_without_dumps(authority: Authority, tmp_path: Path) -> None:
    """PR_SET_DUMPABLE off, as in the pilot, does not bar the process from its own descriptors."""
    credential = pilot_credential(authority)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
            if os.getuid() == 0:
                os.chmod(tmp_path, 0o755)  # noqa: PTH101
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
            client_context(EndpointTrust(kind="system"), credential)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


LEVELS = """
import ssl
import subprocess
import sys
from pilot.farside.transfer import Network
from pilot.tls import EndpointTrust, client_context
trust = {bundle!r}
ours = client_context(EndpointTrust(kind="system", ca_bundle=trust), None)
couriers = Network({{"kind": "system", "ca_bundle": trust}}, "", [], 0.0).context()
print(*(context.security_level for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ours, couriers)))
"""


def test_a_lax_configuration_of_openssl_changes_nothing(authority: Authority, tmp_path: Path) -> None:
    """Weak keys or digests that this machine's OpenSSL is told to accept are refused all the same."""
    lax = tmp_path / "openssl.cnf"
    lax.write_text(
        "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = lax\n"
        "[lax]\nMinProtocol = TLSv1\nCipherString = DEFAULT:@SECLEVEL=0\n"
    )
    script = LEVELS.format(bundle=str(next(authority.cert_dir.glob("*.0"))))
    told = subprocess.run(
        [sys.executable, "-c", script], env={"OPENSSL_CONF": str(lax)}, capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.split() == ["0", "2", "2"]
