"""The testbed dispatcher's one-time tokens: once, for one owner, one attempt, one key."""

from __future__ import annotations

import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pilot.model import Secret, TokenBinding
from pilot.myproxy.token import bound_passphrase
from pilot.testbed.store import RefusedError, Store
from tests.support.store_desk import ALICE, BOB, Clock, claim, final, spec, spki


@pytest.fixture(scope="module")
def key():
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def other_key():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    made = Store(tmp_path / "store.sqlite", clock=clock)
    yield made
    made.close()


# ------------------------------------------------------------------------------------------------------------ tokens


@pytest.fixture
def minted(store, key):
    store.submit(spec())
    return store.assign(claim(key), with_token=True)[1]


def events(store) -> list[str]:
    return [entry["event"] for entry in store.audit()]


def test_token_works_once(store, minted, key) -> None:
    """The right passphrase is accepted once and never again."""
    passphrase = bound_passphrase(minted.token, "1", 1, ALICE, key)
    assert [store.redeem(ALICE, passphrase) for _ in range(3)] == [True, False, False]
    assert events(store) == ["token.used", "token.already-used", "token.already-used"]


def test_token_works_once_under_contention(store, minted, key) -> None:
    """Of many redemptions at the same time exactly one succeeds."""
    passphrase = bound_passphrase(minted.token, "1", 1, ALICE, key)
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(store.redeem(ALICE, passphrase))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [False] * 9 + [True]


def wrong_owner(token, key, other):
    return BOB, bound_passphrase(token, "1", 1, BOB, key)


def wrong_signer(token, key, other):
    return ALICE, bound_passphrase(token, "1", 1, ALICE, other)


def wrong_payload(token, key, other):
    return ALICE, bound_passphrase(token, "2", 1, ALICE, key)


def wrong_attempt(token, key, other):
    return ALICE, bound_passphrase(token, "1", 2, ALICE, key)


def signed_for_another_name(token, key, other):
    return ALICE, bound_passphrase(token, "1", 1, BOB, key)


def without_binding(token, key, other):
    return ALICE, token


@pytest.mark.parametrize(
    ("show", "event"),
    [
        (wrong_owner, "token.wrong-owner"),
        (wrong_signer, "token.wrong-signature"),
        (wrong_payload, "token.wrong-payload"),
        (wrong_attempt, "token.wrong-payload"),
        (signed_for_another_name, "token.wrong-signature"),
        (without_binding, "token.no-binding"),
    ],
)
def test_wrongly_shown_token_is_burned(store, minted, key, other_key, show, event) -> None:
    """A token that is shown with a wrong binding is refused, audited, and worthless from then on."""
    username, passphrase = show(minted.token, key, other_key)
    assert not store.redeem(username, passphrase)
    assert not store.redeem(ALICE, bound_passphrase(minted.token, "1", 1, ALICE, key))
    assert events(store) == [event, "token.already-burned"]


@pytest.mark.parametrize("passphrase", ["", "x" * 20, "a.b.c.d", "\0", "é" * 300, "....."])
def test_nonsense_is_refused(store, minted, passphrase) -> None:
    """What holds no known token is refused and burns nothing."""
    assert not store.redeem(ALICE, passphrase)
    assert events(store) == ["token.unknown"]


def test_token_expires(store, minted, clock, key) -> None:
    """After its ten minutes a token is worthless."""
    clock.now += 600
    assert not store.redeem(ALICE, bound_passphrase(minted.token, "1", 1, ALICE, key))
    assert events(store) == ["token.expired"]


def test_token_lives_ten_minutes_at_most(tmp_path, key, clock) -> None:
    """A longer lifetime cannot be configured."""
    store = Store(tmp_path / "x.sqlite", clock=clock, token_lifetime_s=86_400)
    store.submit(spec())
    assert store.assign(claim(key), with_token=True)[1].expires_at == clock.now + 600
    store.close()


def test_token_ends_with_its_attempt(store, minted, key) -> None:
    """Once the job is over its unused token is refused."""
    final(store, "failed")
    assert not store.redeem(ALICE, bound_passphrase(minted.token, "1", 1, ALICE, key))
    assert events(store) == ["token.attempt-over"]


def test_token_is_nowhere_on_disk(store, minted, tmp_path) -> None:
    """Neither the database nor its neighbours hold the token, and all are private."""
    found = list(tmp_path.iterdir())
    assert len(found) >= 2
    for path in found:
        assert minted.token.reveal().encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


def test_unbound_token(tmp_path, key) -> None:
    """With binding none the token alone is the passphrase; a bound one is refused."""
    store = Store(tmp_path / "x.sqlite", binding=TokenBinding.NONE)
    tokens = []
    for _ in range(2):
        store.submit(spec())
        tokens.append(store.assign(claim(key), with_token=True)[1].token)
    assert store.redeem(ALICE, tokens[0])
    assert not store.redeem(ALICE, bound_passphrase(tokens[1], "2", 1, ALICE, key))
    assert not store.redeem(ALICE, tokens[1])
    store.close()


def test_an_unbound_token_is_renewed_for_its_pilot_only(tmp_path, key, other_key) -> None:
    """Without a binding, too, another pilot of the same name gets no further token of a payload that it did not claim."""
    store = Store(tmp_path / "x.sqlite", binding=TokenBinding.NONE, renewal_pause_s=0.0)
    store.submit(spec())
    store.assign(claim(key), with_token=True)
    with pytest.raises(RefusedError, match="key of another proxy"):
        store.renew(1, 1, "/CN=pilot", spki(other_key))
    assert store.redeem(ALICE, store.renew(1, 1, "/CN=pilot", spki(key)).token)
    store.close()


def test_elliptic_curve_keys_fit(store, other_key) -> None:
    """A token can be bound to an elliptic-curve key."""
    store.submit(spec())
    _, minted = store.assign(claim(other_key), with_token=True)
    assert store.redeem(ALICE, bound_passphrase(minted.token, "1", 1, ALICE, other_key))


def test_large_rsa_key_is_refused_before_the_job_is_handed_out(store) -> None:
    """A key whose signatures do not fit is refused plainly, and the job stays for another pilot."""
    store.submit(spec())
    with pytest.raises(RefusedError, match="RSA-2048"):
        store.assign(claim(rsa.generate_private_key(65537, 3072)), with_token=True)
    assert store.job(1).state == "activated"


def test_proxy_tail_is_not_part_of_the_username(store, key) -> None:
    """An owner stored as a proxy's subject has the credential under the DN itself."""
    store.submit(spec(owner=BOB + "/CN=proxy"))
    assert store.assign(claim(key), with_token=True)[1].username == BOB


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"job_id": 2}, "does not run"),
        ({"attempt": 2}, "does not run"),
        ({"dn": "/CN=other"}, "ever handed"),
        ({"other_key": True}, "key of another proxy"),
        ({"wait_s": 0.5}, "too soon"),
    ],
)
def test_renewal_is_refused(store, minted, clock, key, other_key, changes, why) -> None:
    """Only the pilot that claimed, with the same key, for the running attempt, and not too often; refusals are audited."""
    clock.now += changes.get("wait_s", 5)
    with pytest.raises(RefusedError, match=why):
        store.renew(
            changes.get("job_id", 1),
            changes.get("attempt", 1),
            changes.get("dn", "/CN=pilot"),
            spki(other_key if "other_key" in changes else key),
        )
    assert events(store) == ["token.renewal-refused"]


def test_renewed_token_replaces_the_old_one(store, minted, clock, key) -> None:
    """After a renewal only the new token works."""
    clock.now += 5
    fresh = store.renew(1, 1, "/CN=pilot", spki(key))
    assert not store.redeem(ALICE, bound_passphrase(minted.token, "1", 1, ALICE, key))
    assert store.redeem(ALICE, bound_passphrase(fresh.token, "1", 1, ALICE, key))


def test_secret_is_accepted_too(store, minted, key) -> None:
    """A passphrase may come wrapped or bare."""
    assert store.redeem(ALICE, Secret(bound_passphrase(minted.token, "1", 1, ALICE, key).reveal()))
