"""A job definition as PanDA servers send it, read into a `Payload`.

Source of names and rules: PanDA server, jobdispatcher/Protocol.py (the same in 0.8.1 and 1.0.4), and replies of both
versions as measured.
"""

from __future__ import annotations

import re
from typing import Final

from pilot.dispatch import fields, strictjson
from pilot.dispatch.fields import FieldError, Job
from pilot.dispatch.job_fields import KNOWN, NOT_SUPPORTED
from pilot.dispatch.strictjson import Json, JsonError
from pilot.dispatch.ticket import LONGEST_DN, parse_ticket
from pilot.errors import PayloadInvalidError
from pilot.model import InputFile, OutputFile, Payload, RequestedLimits, Secret

_MIB: Final = 1024 * 1024
MOST_ID: Final = 2**63 - 1
MOST_ATTEMPT: Final = 1_000_000
LONGEST_LOG_NAME: Final = 1024
_MOST_SECONDS: Final = 366 * 86_400
_MOST_MB: Final = 1_000_000_000
_MOST_CORES: Final = 4096
_LONGEST_SECRETS: Final = 128 * 1024
_MOST_UNKNOWN: Final = 20
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SCOPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_GUID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_ENDPOINT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?/[!-~]{0,2000}")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_IMAGE: Final = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._:/@+-]{0,1023}")


def parse_job(job: Json) -> Payload:
    """Read one job definition.

    Raises:
        PayloadInvalidError: names the field; carries payload id, attempt and owner where they could be read.
    """
    if not isinstance(job, dict):
        raise PayloadInvalidError(_say("", "it is not a JSON object"), reason="not-an-object")
    payload_id, attempt, owner = "", None, ""
    try:
        found = fields.number(job, "PandaID", least=1, most=MOST_ID)
        if found is None:
            msg = "PandaID is missing"
            raise FieldError(msg)
        payload_id = str(found)
        owner = _owner(job)
        attempt = fields.number(job, "attemptNr", most=MOST_ATTEMPT)
        if attempt is None:
            msg = "attemptNr is missing"
            raise FieldError(msg)
        return _payload(job, payload_id, attempt)
    except FieldError as error:
        message = _say(payload_id, str(error))
        raise PayloadInvalidError(message, reason="job-definition", payload_id=payload_id, attempt=attempt, owner=owner) from error


def _owner(job: Job) -> str:
    """The owner as far as he can be read: for reports about a job that is refused for another reason."""
    try:
        return fields.line(job, "prodUserID", limit=LONGEST_DN)
    except FieldError:
        return ""


def _say(payload_id: str, why: str) -> str:
    name = f"payload {payload_id}" if payload_id else "the payload"
    return f"cannot accept {name} from the dispatcher: {why}; its job definition must be corrected where it was submitted"


def _payload(job: Job, payload_id: str, attempt: int) -> Payload:
    owner = _required(job, "prodUserID", LONGEST_DN, "nobody can be held to own it")
    _refuse_features(job)
    inputs = _inputs(job)
    outputs, log = _outputs(job)
    _no_clash([file.lfn for file in inputs], [file.lfn for file in (*outputs, *((log,) if log else ()))])
    return Payload(
        id=payload_id,
        attempt=attempt,
        owner=owner,
        label=_label(job),
        transformation=_transformation(job),
        # Sent as they are: where a job asks for encoded parameters the server encodes them, and the transformation decodes.
        parameters=fields.text(job, "jobPars"),
        inputs=inputs,
        outputs=outputs,
        log=log,
        limits=_limits(job),
        ticket=parse_ticket(job, owner),
        task_id=fields.line(job, "taskID", limit=40),
        container=_word(job, "container_name", _IMAGE, 1024),
        secrets=_secrets(job),
        debug=fields.flag(job, "debug"),
        unknown=_unknown(job),
    )


def _refuse_features(job: Job) -> None:
    """What this pilot would do wrongly it does not do at all."""
    for name, what in NOT_SUPPORTED.items():
        if fields.given(job, name):
            msg = f"{name} asks for {what}, which this pilot cannot do"
            raise FieldError(msg)


def _transformation(job: Job) -> str:
    """A command, or an http(s) URL; any other scheme is neither."""
    found = _required(job, "transformation", 4096, "there is nothing to run")
    if _SCHEME.match(found) and not _URL.fullmatch(found):
        msg = "transformation is not a plain http or https URL"
        raise FieldError(msg)
    return found


def _word(job: Job, name: str, form: re.Pattern[str], limit: int) -> str:
    found = fields.line(job, name, limit=limit)
    if found and not form.fullmatch(found):
        msg = f"{name} holds {found[:80]!r}, which does not have the form that it must have"
        raise FieldError(msg)
    return found


def _secrets(job: Job) -> Secret[str] | None:
    """The owner's secrets for the payload: a JSON object as text, handed on unread."""
    try:
        found = fields.text(job, "secrets", limit=_LONGEST_SECRETS)
        if not found:
            return None
        if not isinstance(strictjson.loads(found.encode()), dict):
            msg = "secrets is not a JSON object"
            raise FieldError(msg)
    except JsonError as error:
        msg = f"secrets is no use, {error}"
        raise FieldError(msg) from None
    return Secret(found)


def _unknown(job: Job) -> tuple[str, ...]:
    """Names of fields that neither this pilot nor PanDA's protocol knows, printable and bounded. Their values may be secret."""
    names = sorted(name for name in job if name not in KNOWN)
    shown = [name if name.isidentifier() and len(name) <= 64 else repr(name[:64]) for name in names[:_MOST_UNKNOWN]]
    return tuple(shown + ([f"and {len(names) - _MOST_UNKNOWN} more"] if len(names) > _MOST_UNKNOWN else []))


def _required(job: Job, name: str, limit: int, consequence: str) -> str:
    found = fields.line(job, name, limit=limit)
    if not found:
        msg = f"{name} is missing, so {consequence}"
        raise FieldError(msg)
    return found


def _label(job: Job) -> str:
    found = _required(job, "prodSourceLabel", 64, "its class is unknown")
    if not _LABEL.fullmatch(found):
        msg = "prodSourceLabel is not a plain word"
        raise FieldError(msg)
    return found


def _inputs(job: Job) -> tuple[InputFile, ...]:
    names = [fields.file_name(name, "inFiles") for name in fields.items(job, "inFiles")]
    count = len(names)
    columns = zip(
        names,
        fields.parallel(job, "scopeIn", count, "inFiles"),
        fields.parallel(job, "GUID", count, "inFiles"),
        fields.parallel(job, "fsize", count, "inFiles"),
        fields.parallel(job, "checksum", count, "inFiles"),
        fields.parallel(job, "ddmEndPointIn", count, "inFiles"),
        strict=True,
    )
    return tuple(
        InputFile(
            lfn=lfn,
            scope=fields.formed(scope, "scopeIn", _SCOPE),
            guid=fields.formed(guid, "GUID", _GUID),
            # An unset size is stored as 0 (FileSpec), so 0 promises nothing.
            size_bytes=fields.number({"fsize": size}, "fsize", most=2**60) or None,
            checksum=fields.checksum(summed, "checksum"),
            endpoint=fields.formed(endpoint, "ddmEndPointIn", _ENDPOINT),
        )
        for lfn, scope, guid, size, summed, endpoint in columns
    )


def _outputs(job: Job) -> tuple[tuple[OutputFile, ...], OutputFile | None]:
    """Outputs without the log, and the log: ``outFiles`` holds both, ``scopeOut`` does not."""
    names = [fields.file_name(name, "outFiles") for name in fields.items(job, "outFiles")]
    listed = (fields.formed(name, "ddmEndPointOut", _ENDPOINT) for name in fields.parallel(job, "ddmEndPointOut", len(names), "outFiles"))
    endpoints = dict(zip(names, listed, strict=True))
    log_name = fields.line(job, "logFile", limit=LONGEST_LOG_NAME)
    plain = [name for name in names if name != log_name]
    listed = (fields.formed(name, "scopeOut", _SCOPE) for name in fields.parallel(job, "scopeOut", len(plain), "outFiles without the log"))
    scopes = tuple(listed)
    may_miss = frozenset(fields.items(job, "allowNoOutput"))
    outputs = tuple(
        OutputFile(lfn=lfn, scope=scope, endpoint=endpoints[lfn], optional=lfn in may_miss)
        for lfn, scope in zip(plain, scopes, strict=True)
    )
    if len(set(names)) != len(names):
        msg = "outFiles names a file twice"
        raise FieldError(msg)
    if not log_name:
        return outputs, None
    log = OutputFile(
        lfn=fields.file_name(log_name, "logFile"),
        scope=_word(job, "scopeLog", _SCOPE, 255),
        guid=_word(job, "logGUID", _GUID, 64),
        endpoint=endpoints.get(log_name, ""),
    )
    return outputs, log


def _no_clash(inputs: list[str], outputs: list[str]) -> None:
    if len(set(inputs)) != len(inputs):
        msg = "inFiles names a file twice"
        raise FieldError(msg)
    both = set(inputs) & set(outputs)
    if both:
        msg = f"{min(both)!r} is both in inFiles and in outFiles"
        raise FieldError(msg)


def _limits(job: Job) -> RequestedLimits:
    memory = fields.number(job, "minRamCount", most=_MOST_MB)
    disk = fields.number(job, "maxDiskCount", most=_MOST_MB)
    # 0 means "no value" in all of these.
    return RequestedLimits(
        wall_s=fields.number(job, "maxWalltime", most=_MOST_SECONDS) or None,
        cpu_s=fields.number(job, "maxCpuCount", most=_MOST_SECONDS * _MOST_CORES) or None,
        memory_bytes=memory * _MIB if memory else None,
        disk_bytes=disk * _MIB if disk else None,
        cores=fields.number(job, "coreCount", most=_MOST_CORES) or 1,
    )
