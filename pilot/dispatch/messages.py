"""The messages of the dispatcher protocol as types: what a server must understand and say so that this pilot can work for it.

The subset of PanDA's REST protocol v1 that the pilot uses (PanDA server, api/v1/pilot_api.py), with the one-time token extension.
Requests are made from the table of arguments that the pilot sends; replies name the fields that the decoder reads. The JSON Schemas
in docs/reference come from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from pilot.dispatch.arguments import ACQUIRE, UPDATE, Argument
from pilot.dispatch.ticket import LONGEST_DN, PATH_FORM, SERVER_FORM, TOKEN_FORM

_Number = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern="^(|NULL|[0-9]{1,20})$")] | None
"""A number, also as text; null, an empty text and ``NULL`` mean that there is none."""
_Line = Annotated[str, Meta(pattern="^[^\\x00-\\x1f\\x7f]*$")]
_List = Annotated[str, Meta(description="comma-joined, without any escaping; NULL or an empty text: none")] | None
_Dn = Annotated[str, Meta(max_length=LONGEST_DN, pattern="^[^\\x00-\\x1f\\x7f]*$")]
_Moment = Annotated[str, Meta(description="UTC as YYYY-mm-dd HH:MM:SS, or ISO 8601", max_length=64)]


class TokenFields(Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The one-time token extension: how the owner's proxy is to be had. All may be left out."""

    myproxy: Annotated[str, Meta(description="HOST or HOST:PORT; empty: no extension", pattern=f"^({SERVER_FORM.pattern})?$")] = ""
    credname: Annotated[str, Meta(description="name of the credential there; empty: the default one", max_length=128)] = ""
    userProxyDN: Annotated[_Dn, Meta(description="MyProxy username; empty: prodUserID")] = ""  # noqa: N815 (the protocol's name)
    myproxyToken: Annotated[str, Meta(description="one-time token", pattern=f"^({TOKEN_FORM.pattern})?$")] = ""  # noqa: N815
    myproxyTokenExpires: _Moment = ""  # noqa: N815
    myproxyTokenBinding: Literal["none", "proxy-key"] = "none"  # noqa: N815
    myproxyTokenRenewal: Annotated[  # noqa: N815
        str, Meta(description="path on the same dispatcher for one further token", pattern=f"^({PATH_FORM.pattern})?$", max_length=256)
    ] = ""


class Job(TokenFields, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A job definition. Further fields are kept and logged, or refused where they would change how the payload is to be run."""

    PandaID: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    attemptNr: Annotated[int, Meta(description="echoed in each report", ge=0, le=1_000_000)]  # noqa: N815
    prodUserID: Annotated[_Dn, Meta(description="the owner", min_length=1)]  # noqa: N815
    prodSourceLabel: Annotated[str, Meta(description="class: user, managed, ...", pattern="^[A-Za-z0-9_.-]{1,64}$")]  # noqa: N815
    transformation: Annotated[_Line, Meta(description="a command, or an https URL of a program", min_length=1, max_length=4096)]
    jobPars: Annotated[str, Meta(description="the rest of the command line", max_length=512 * 1024)] | None = None  # noqa: N815
    taskID: _Number = None  # noqa: N815
    inFiles: _List = None  # noqa: N815
    scopeIn: _List = None  # noqa: N815
    GUID: _List = None
    fsize: _List = None
    checksum: _List = None
    ddmEndPointIn: _List = None  # noqa: N815
    outFiles: Annotated[_List, Meta(description="outputs, and the log")] = None  # noqa: N815
    scopeOut: Annotated[_List, Meta(description="beside outFiles without the log")] = None  # noqa: N815
    ddmEndPointOut: Annotated[_List, Meta(description="beside outFiles")] = None  # noqa: N815
    allowNoOutput: Annotated[_List, Meta(description="outputs that may be missing")] = None  # noqa: N815
    logFile: _Line | None = None  # noqa: N815
    scopeLog: _Line | None = None  # noqa: N815
    logGUID: _Line | None = None  # noqa: N815
    maxWalltime: Annotated[_Number, Meta(description="seconds; 0: none")] = None  # noqa: N815
    maxCpuCount: Annotated[_Number, Meta(description="seconds; 0: none")] = None  # noqa: N815
    minRamCount: Annotated[_Number, Meta(description="MB; 0: none")] = None  # noqa: N815
    maxDiskCount: Annotated[_Number, Meta(description="MB; 0: none")] = None  # noqa: N815
    coreCount: _Number = None  # noqa: N815
    container_name: _Line | None = None
    secrets: Annotated[str, Meta(description="JSON text; reaches the payload as a file, is never logged")] | None = None
    debug: Annotated[str, Meta(description="True: starts in debug mode")] | None = None


class Code(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A StatusCode alone."""

    StatusCode: int


class Refusal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request that was not accepted, in each method; ``No jobs in PanDA`` in answer to a claim is no work."""

    success: bool
    message: str
    data: Code | None = None


class Claimed(Struct, frozen=True, kw_only=True):
    """What a claim got."""

    StatusCode: Literal[0]
    jobs: Annotated[list[Job], Meta(max_length=1)]


class Failure(Struct, frozen=True, kw_only=True):
    """The database failed (30) or timed out (10): nothing has happened, ask again. 20: no work."""

    StatusCode: Literal[10, 20, 30]


class Reported(Struct, frozen=True, kw_only=True):
    """A report was taken."""

    StatusCode: Literal[0]
    command: Annotated[str, Meta(description="comma-joined: tobekilled, softkill, debug, alreadydone, ...; NULL: none")] | None = None


class Known(Struct, frozen=True, kw_only=True):
    """What the server knows of a job."""

    job_id: int
    status: Annotated[str, Meta(description="a state of PanDA, or `not found`")]
    attempt_number: int


class Renewed(TokenFields, frozen=True, kw_only=True):
    """One further token, with the fields that came with the first."""

    StatusCode: Literal[0]


def _answer(name: str, data: Any) -> Any:  # noqa: ANN401 (a type made at run time)
    """The envelope of an answer to a request that was understood."""
    fields = [("success", bool), ("message", str), ("data", data)]
    return msgspec.defstruct(name, fields, frozen=True, kw_only=True, forbid_unknown_fields=True)


def _request(name: str, table: tuple[Argument, ...], required: tuple[str, ...]) -> Any:  # noqa: ANN401
    fields: list[Any] = []
    for argument in table:
        kind: Any = argument.kind
        if argument.longest:
            kind = Annotated[kind, Meta(max_length=argument.longest)]
        fields.append((argument.name, kind) if argument.name in required else (argument.name, kind | UnsetType, UNSET))
    return msgspec.defstruct(name, fields, frozen=True, kw_only=True, forbid_unknown_fields=True)


class RenewRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks for one further token, with the certificate that claimed the job."""

    job_id: int
    attempt_nr: int


class RedeemRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shown by the MyProxy server's verifier, with its host certificate."""

    username: _Dn
    passphrase: Annotated[str, Meta(max_length=511)]


class Redeemed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the token was good; it is spent."""

    success: bool


_FAILURE: Final = _answer("FailureAnswer", Failure)

MESSAGES: Final[dict[str, tuple[Any, ...]]] = {
    "AcquireRequest": (_request("AcquireRequest", ACQUIRE, ("site_name",)),),
    "AcquireReply": (_answer("AcquireAnswer", Claimed), _FAILURE, Refusal),
    "UpdateRequest": (_request("UpdateRequest", UPDATE, ("job_id", "attempt_nr", "job_status")),),
    "UpdateReply": (_answer("UpdateAnswer", Reported), _FAILURE, Refusal),
    "StatusReply": (_answer("StatusAnswer", list[Known]), Refusal),
    "RenewRequest": (RenewRequest,),
    "RenewReply": (_answer("RenewAnswer", Renewed), Refusal),
    "RedeemRequest": (RedeemRequest,),
    "RedeemReply": (Redeemed,),
}
"""Each message by name: the forms that it may have."""


def fits(name: str, body: bytes) -> str:
    """Check a message; empty if it has one of its forms, else what is wrong with the first one tried."""
    wrong = ""
    for form in MESSAGES[name]:
        try:
            found = msgspec.json.decode(body, type=form)
        except msgspec.ValidationError as error:
            wrong = wrong or str(error)
        else:
            expected = _success(form)
            if expected is None or found.success == expected:
                return ""
            wrong = wrong or "success does not fit the data"
    return wrong


def _success(form: Any) -> bool | None:  # noqa: ANN401
    """What `success` is in an envelope of this form; None where it is free."""
    return None if "data" not in form.__struct_fields__ else form is not Refusal


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of all messages, by name in ``$defs``."""
    forms = list(dict.fromkeys(form for forms in MESSAGES.values() for form in forms))
    found, parts = msgspec.json.schema_components(forms)
    named: dict[str, Any] = dict(parts)
    places = dict(zip(forms, found, strict=True))
    for form, place in places.items():
        if _success(form) is not None:
            named[place["$ref"].rpartition("/")[2]]["properties"]["success"] = {"const": _success(form)}
    for name, several in MESSAGES.items():
        if len(several) > 1:
            named[name] = {"anyOf": [places[form] for form in several]}
        elif name not in named:
            named[name] = places[several[0]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Dispatcher protocol", "$defs": named}
