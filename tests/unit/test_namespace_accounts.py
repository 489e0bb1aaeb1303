"""Test accounts: free numbers, refusals; the pure part of the namespace."""

from __future__ import annotations

import pytest

from pilot.testbed.namespace import FIRST_UID, NamespaceError, with_accounts

PASSWD = f"root:x:0:0:root:/root:/bin/bash\ntaken:x:{FIRST_UID}:5:::\nlast:x:7:7::/:"
GROUP = f"root:x:0:\nother:x:{FIRST_UID + 1}:\n"


def test_free_numbers_are_taken() -> None:
    """Numbers that are a uid or a gid on the machine are skipped, and each account has a group of its own."""
    passwd, group, numbers = with_accounts(PASSWD, GROUP, ("one", "two"), "/mnt/home")
    assert numbers == {"one": FIRST_UID + 2, "two": FIRST_UID + 3}
    assert passwd.startswith(PASSWD + "\n")
    assert passwd.endswith(f"two:x:{FIRST_UID + 3}:{FIRST_UID + 3}:test account:/mnt/home/two:/usr/sbin/nologin\n")
    assert group == GROUP + f"one:x:{FIRST_UID + 2}:\ntwo:x:{FIRST_UID + 3}:\n"


@pytest.mark.parametrize("name", ["root", "taken", "other"])
def test_existing_names_are_refused(name: str) -> None:
    """An account or group of the machine is never redefined."""
    with pytest.raises(NamespaceError, match=name):
        with_accounts(PASSWD, GROUP, (name,), "/mnt/home")
