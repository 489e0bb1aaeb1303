"""Fields of the configuration that do not go together."""

from __future__ import annotations

import pytest

from tests.support.config_files import load_with, refusal


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("identity.gateway=none",), "identity.switch is required but identity.gateway is none"),
        (("identity.gateway=sudo",), "identity.sudo_accounts and identity.gateway: sudo go together"),
        (("identity.sudo_accounts={'*': pool}",), "identity.sudo_accounts and identity.gateway: sudo go together"),
        (("identity.gateway=sudo", "identity.sudo_accounts={'*': root}"), "identity.sudo_accounts names root"),
        (("identity.switch=never",), "identity.switch is never but identity.gateway is glexec"),
        (("identity.switch=never", "identity.gateway=none", "identity.glexec=/x"), "identity.glexec is set but"),
        (("identity.gateway=bwrap",), "identity.gateway bwrap keeps the pilot's account"),
        (("identity.switch=never", "identity.gateway=apptainer"), "identity.image and identity.gateway: apptainer go together"),
        (("identity.image=/x",), "identity.image and identity.gateway: apptainer go together"),
        (("identity.minimum_isolation=sealed", "payload.landlock=off"), "sealed but payload.landlock is off"),
        (
            ("identity.switch=never", "identity.gateway=none", "identity.minimum_isolation=confined", "payload.landlock=off"),
            "confined but payload.landlock is off",
        ),
        (("identity.switch=never", "identity.gateway=bwrap", "identity.minimum_isolation=switched"), "gateway bwrap cannot give"),
        (("identity.switch=never", "identity.gateway=none", "identity.minimum_isolation=walled"), "gateway none cannot give"),
        (("payload.readable=[/data]", "paths.journal=/data/journal"), "payload.readable names /data, within which paths.journal"),
        (("payload.writable=[/]", "pilot.proxy=/home/p/proxy"), "payload.writable names /, within which pilot.proxy"),
        (("myproxy.servers=[]",), "myproxy.servers is empty"),
        (("credentials.sources={managed: file}",), "credentials.file or credentials.file_dn is empty"),
        (("credentials.sources={managed: file}", "credentials.file=/x"), "credentials.file or credentials.file_dn is empty"),
        (("credentials.sources={user: none}",), "maps owners by their proxy"),
        (("credentials.sources={}",), "credentials.sources is empty"),
        (("dispatcher.ca_bundle=/x",), "dispatcher.ca_bundle is set but dispatcher.trust is grid"),
        (("staging.ca_bundle=/x",), "staging.ca_bundle is set but staging.trust is grid"),
        (("dispatcher.url=https://h:65536",), "port above 65535"),
        (("myproxy.servers=['h:99999']",), "port above 65535"),
        (("staging.endpoints={A: 'https://h:99999/x'}",), "port above 65535"),
        (("staging.default_endpoint=A",), "not in staging.endpoints"),
        (("payload.environment={HOME: /x}",), "payload.environment sets HOME"),
        (("payload.environment={GLEXEC_ID: x}",), "payload.environment sets GLEXEC_ID"),
        (("lifetime.reserve_s=30", "lifetime.batch_grace_s=30"), "must be smaller than"),
    ],
)
def test_conflict_is_refused(overrides: tuple[str, ...], words: str) -> None:
    """Each conflict is refused by one sentence, and it is the only problem told."""
    message = refusal(*overrides)
    assert words in message
    assert "1 problem:" in message


@pytest.mark.parametrize(
    "overrides",
    [
        ("identity.switch=never", "identity.gateway=none"),
        ("identity.switch=if_configured", "identity.gateway=none"),
        ("identity.switch=if_configured",),
        ("identity.switch=never", "identity.gateway=bwrap", "identity.minimum_isolation=walled", "payload.landlock=off"),
        ("identity.switch=never", "identity.gateway=bwrap", "identity.minimum_isolation=confined", "payload.landlock=off"),
        ("identity.switch=never", "identity.gateway=apptainer", "identity.image=/cvmfs/x"),
        ("payload.readable=[/data]", "paths.journal=/database/journal"),
        ("identity.switch=never", "identity.gateway=none", "credentials.sources={user: none}", "myproxy.servers=[]"),
        ("credentials.sources={managed: file}", "credentials.file=/x", "credentials.file_dn=/CN=x", "myproxy.servers=[]"),
        ("dispatcher.trust=system", "dispatcher.ca_bundle=/x"),
        ("dispatcher.url=https://[::1]:65535/base",),
        ("staging.endpoints={A: 'file:///data'}", "staging.default_endpoint=A"),
    ],
)
def test_meant_combinations_are_accepted(overrides: tuple[str, ...]) -> None:
    """What sites really combine is accepted."""
    load_with(*overrides)


def test_no_second_message_about_a_bad_field() -> None:
    """A field that is wrong by itself is not also told as part of a conflict."""
    assert "1 problem:" in refusal("identity.gateway=glexce")
