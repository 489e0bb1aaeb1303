"""Who a client of the testbed's servers is, whatever certificates it sends beside those that count."""

from __future__ import annotations

import ssl
import urllib.request

import pytest
from cryptography import x509

from pilot.testbed import pki
from pilot.testbed.dispatcher_peer import identify
from pilot.testbed.dispatcher_tls import TlsHandler, TlsServer, client_chain
from pilot.testbed.pki import Credential, make_proxy
from pilot.tls import sealed_file
from tests.support.forging import World, forge, make_world

NETSCAPE_TYPE = x509.ObjectIdentifier("2.16.840.1.113730.1.1")


class Telling(TlsServer):
    """Tells each client its attributes."""

    def __init__(self, world: World) -> None:
        super().__init__(_Tells, world.authority.host("localhost"), world.authority.cert_dir, client_needed=True)
        self.voms_dir = world.authority.voms_dir
        self.cert_dir = world.authority.cert_dir


class _Tells(TlsHandler):
    server: Telling

    def do_GET(self) -> None:  # noqa: N802 (the name is the base class's)
        peer = identify(client_chain(self.connection), self.server.cert_dir, self.server.voms_dir)
        self.reply(200, ",".join(peer.fqans if peer else ("refused",)).encode())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def attributes_seen(world: World, proxy: Credential) -> str:
    """What the server tells a client that shows this credential."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(capath=str(world.authority.cert_dir))
    with sealed_file(proxy.pem()) as path:
        context.load_cert_chain(path)
    with Telling(world) as server:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with opener.open(server.url, timeout=20) as answer:
            return answer.read().decode()


def test_stolen_attributes_fit_no_forged_end_entity(world: World) -> None:
    """A forged certificate of the user's own name and key, with the number of the pilot's, brings none of the pilot's attributes."""
    stolen = world.voms.attributes(world.robot, [pki.PILOT_FQAN])
    proxy = make_proxy(world.alice, attributes=[stolen])
    broken = x509.UnrecognizedExtension(NETSCAPE_TYPE, b"\x04\x01x")  # OpenSSL passes over such a certificate, and finds the true one
    forged = forge(
        world.robot, subject=world.alice.cert.subject, issuer_name=world.robot.cert.subject, info=None, key=world.alice.key,
        serial=world.robot.cert.serial_number, extensions=[(broken, False)], signer=world.alice.key,
    ).cert  # fmt: skip
    assert attributes_seen(world, make_proxy(world.robot, attributes=[stolen])) == pki.PILOT_FQAN
    assert attributes_seen(world, proxy) == ""
    assert attributes_seen(world, Credential(proxy.cert, proxy.key, (forged, world.alice.cert))) == ""
