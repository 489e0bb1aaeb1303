"""How the stages of a flight are told, in lines that a person can follow."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pilot.errors import PilotError
from pilot.log import Teller
from pilot.model import MovedFile, OwnerCredential, Payload, PayloadCredential, PayloadResult, PilotIdentity, ProxyIdentity
from pilot.ports import Account
from pilot.verdict import verdict


def admitted(teller: Teller, pilot: PilotIdentity) -> None:
    """Who am I?"""
    if not isinstance(pilot, ProxyIdentity):
        teller.say("pilot.admitted", f"I am {pilot.dn}, as my bearer token says; what it allows is the dispatcher's to decide")
        teller.audit("pilot.admitted", pilot_dn=pilot.dn, role="", vo=pilot.vo)
        return
    hours = (pilot.not_after - datetime.now(UTC)).total_seconds() / 3600
    teller.say("pilot.admitted", f"I am {pilot.dn}, role {pilot.role}, proxy good for {hours:.1f} h")
    teller.audit("pilot.admitted", pilot_dn=pilot.dn, role=pilot.role, vo=pilot.vo)


def journal(teller: Teller, path: Path, *, inside: bool) -> None:
    """Where do final states wait that cannot be delivered?"""
    if inside:
        text = f"WARNING: the journal {path} lies in scratch space that ends with this slot; set paths.journal to a place that outlives it"
        teller.say("journal.in-scratch", text)


def kept(teller: Teller, refusal: PilotError) -> None:
    """The proxy file changed for the worse; the former proxy stays in use."""
    teller.say("pilot.proxy-kept", f"will go on with the proxy from before: {refusal.message}", flight=False, reason=refusal.reason)
    teller.audit("pilot.proxy-refused", reason=refusal.reason)


def credential(teller: Teller, obtained: PayloadCredential) -> None:
    """For whom do I work?"""
    if not isinstance(obtained, OwnerCredential):
        teller.say("flight.obtained", "this class of payloads runs without a credential, as the site says")
        return
    hours = (obtained.not_after - datetime.now(UTC)).total_seconds() / 3600
    teller.say("flight.obtained", f"obtained the owner's proxy: {obtained.dn}, good for {hours:.1f} h")


def boarded(  # noqa: PLR0917 - the six facts of the record
    teller: Teller, pilot: PilotIdentity, payload: Payload, obtained: PayloadCredential, account: Account, gateway: str
) -> None:
    """As whom? Also the audit record by which a (host, uid, time) leads to pilot, owner, payload."""
    how = f"switched to account {account.name} (uid {account.uid}) through {gateway}"
    if not account.switched:
        how = f"NOT switched: running in the pilot's own account {account.name} (uid {account.uid}), as the site says"
    isolation = account.isolation
    measures = ", ".join(isolation.measures) or "nothing beneath"
    teller.say("flight.boarded", f"{how}; isolation {isolation.level.word} ({measures})", uid=account.uid, isolation=isolation.level.word)
    teller.audit(
        "identity.boarded",
        pilot_dn=pilot.dn,
        owner_dn=obtained.dn if isinstance(obtained, OwnerCredential) else "",
        payload_owner=payload.owner,
        payload_id=payload.id,
        attempt=payload.attempt,
        account=account.name,
        uid=account.uid,
        switched=account.switched,
        gateway=gateway,
        isolation=isolation.level.word,
        measures=",".join(isolation.measures),
    )


def moved(teller: Teller, event: str, verb: str, files: tuple[MovedFile, ...]) -> None:
    """What moved?"""
    if files:
        total = sum(one.size_bytes for one in files)
        count = "1 file" if len(files) == 1 else f"{len(files)} files"
        names = ", ".join(one.name for one in files[:5]) + (", ..." if len(files) > 5 else "")
        teller.say(event, f"{verb} {count}, {size(total)}, checksums agree: {names}")


def result(teller: Teller, ended: PayloadResult) -> None:
    """How did it end?"""
    _, diagnosis = verdict(ended)
    usage = ended.usage
    text = diagnosis or "payload ended with exit code 0"
    swept = f"; {ended.killed_survivors} left-over process(es) killed" if ended.killed_survivors else ""
    memory = max(usage.max_rss_bytes, usage.rss_bytes)
    used = f"{ended.wall_s:.1f} s, CPU {usage.cpu_s:.2f} s" + (f", memory {size(memory)}" if memory else "")
    teller.say("flight.ended", f"{text} ({used}){swept}", exit_code=ended.exit_code, signal=ended.signal)


def log_stored(teller: Teller, archive: MovedFile) -> None:
    """Where is the log?"""
    teller.say("flight.log", f"stored the log archive {archive.name}, {size(archive.size_bytes)}, as the owner")


def remains(teller: Teller, account: Account) -> None:
    """What stays on the node?"""
    if account.litter:
        teller.say("flight.litter", account.litter)
    if account.kept:
        whose = f"{account.kept}/work, of account {account.name} (uid {account.uid})"
        who = "as root" if account.switched else "when you have looked at it"
        teller.say("flight.kept", f"the work directory stays, without credentials: {whose}; remove it {who}: rm -rf -- {account.kept}")
    elif account.unkept:
        teller.say("flight.kept", f"the work directory is not kept: {account.unkept}; it was removed")


def closed(teller: Teller, directories: tuple[str, ...]) -> None:
    """What did killed pilots leave open?"""
    for directory in directories:
        teller.say("recovery.closed", f"closed {directory} to other accounts again; a pilot that was killed had opened it")


def size(count: int) -> str:
    """A number of bytes for people."""
    if count < 10_000:
        return f"{count} bytes"
    return f"{count / 1e6:.1f} MB" if count >= 1_000_000 else f"{count / 1e3:.0f} kB"
