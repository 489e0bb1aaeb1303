"""A job definition as PanDA servers send it, read into a `Payload`.

Source of names and rules: PanDA server, jobdispatcher/Protocol.py (the same in 0.8.1 and 1.0.4), and replies of both
versions as measured. The fields ``myproxyToken...`` are the one-time token extension of this project.
"""

from __future__ import annotations

import re
from typing import Final

from pilot.dispatch import fields
from pilot.dispatch.fields import FieldError, Job
from pilot.dispatch.strictjson import Json
from pilot.errors import PayloadInvalidError
from pilot.model import InputFile, MyProxyTicket, OutputFile, Payload, RequestedLimits, Secret, TokenBinding

MYPROXY_PORT: Final = 7512
_MIB: Final = 1024 * 1024
_LONGEST_DN: Final = 1024
_MOST_ID: Final = 2**63 - 1
_MOST_ATTEMPT: Final = 1_000_000
_MOST_SECONDS: Final = 366 * 86_400
_MOST_MB: Final = 1_000_000_000
_MOST_CORES: Final = 4096
_SERVER: Final = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
_PATH: Final = re.compile(r"/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*")
_LABEL: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def parse_job(job: Json) -> Payload:
    """Read one element of ``data.jobs`` of an `acquire_jobs` reply.

    Raises:
        PayloadInvalidError: names the field; carries payload id and attempt where they could be read.
    """
    if not isinstance(job, dict):
        raise PayloadInvalidError(_say("", "it is not a JSON object"), reason="not-an-object")
    payload_id, attempt = "", 0
    try:
        found = fields.number(job, "PandaID", least=1, most=_MOST_ID)
        if found is None:
            msg = "PandaID is missing"
            raise FieldError(msg)
        attempt_found = fields.number(job, "attemptNr", most=_MOST_ATTEMPT)
        if attempt_found is None:
            msg = "attemptNr is missing"
            raise FieldError(msg)
        payload_id, attempt = str(found), attempt_found
        return _payload(job, payload_id, attempt)
    except FieldError as error:
        message = _say(payload_id, str(error))
        raise PayloadInvalidError(message, reason="job-definition", payload_id=payload_id, attempt=attempt) from error


def _say(payload_id: str, why: str) -> str:
    name = f"payload {payload_id}" if payload_id else "the payload"
    return f"cannot accept {name} from the dispatcher: {why}; its job definition must be corrected where it was submitted"


def _payload(job: Job, payload_id: str, attempt: int) -> Payload:
    owner = _required(job, "prodUserID", _LONGEST_DN, "nobody can be held to own it")
    inputs = _inputs(job)
    outputs, log = _outputs(job)
    _no_clash([file.lfn for file in inputs], [file.lfn for file in (*outputs, *((log,) if log else ()))])
    return Payload(
        id=payload_id,
        attempt=attempt,
        owner=owner,
        label=_label(job),
        transformation=_required(job, "transformation", 4096, "there is nothing to run"),
        parameters=fields.text(job, "jobPars"),
        inputs=inputs,
        outputs=outputs,
        log=log,
        limits=_limits(job),
        ticket=parse_ticket(job, owner),
        task_id=fields.line(job, "taskID", limit=40),
    )


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
            scope=scope,
            guid=guid,
            # An unset size is stored as 0 (FileSpec), so 0 promises nothing.
            size_bytes=fields.number({"fsize": size}, "fsize", most=2**60) or None,
            checksum=fields.checksum(summed, "checksum"),
            endpoint=endpoint,
        )
        for lfn, scope, guid, size, summed, endpoint in columns
    )


def _outputs(job: Job) -> tuple[tuple[OutputFile, ...], OutputFile | None]:
    """Outputs without the log, and the log: ``outFiles`` holds both, ``scopeOut`` does not."""
    names = [fields.file_name(name, "outFiles") for name in fields.items(job, "outFiles")]
    endpoints = dict(zip(names, fields.parallel(job, "ddmEndPointOut", len(names), "outFiles"), strict=True))
    log_name = fields.line(job, "logFile", limit=1024)
    plain = [name for name in names if name != log_name]
    scopes = fields.parallel(job, "scopeOut", len(plain), "outFiles without the log")
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
        scope=fields.line(job, "scopeLog", limit=255),
        guid=fields.line(job, "logGUID", limit=64),
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


def parse_ticket(job: Job, owner: str) -> MyProxyTicket | None:
    """Read the fields that say how the owner's proxy is to be had; None if the dispatcher names no MyProxy server.

    Args:
        owner: used as MyProxy username where ``userProxyDN`` is not given.

    Raises:
        FieldError: a field has a wrong form. The token itself is never quoted.
    """
    server = fields.line(job, "myproxy", limit=300)
    if not server:
        return None
    token = fields.text(job, "myproxyToken")
    if token and not _TOKEN.fullmatch(token):
        msg = "myproxyToken does not have the form of a token"
        raise FieldError(msg)
    renewal = fields.line(job, "myproxyTokenRenewal", limit=256)
    if renewal and not _PATH.fullmatch(renewal):
        msg = "myproxyTokenRenewal is not a plain path on the dispatcher"
        raise FieldError(msg)
    return MyProxyTicket(
        server=_server(server),
        username=fields.line(job, "userProxyDN", limit=_LONGEST_DN) or owner,
        credname=fields.line(job, "credname", limit=128),
        token=Secret(token) if token else None,
        token_expires_at=fields.moment(job, "myproxyTokenExpires"),
        binding=_binding(fields.line(job, "myproxyTokenBinding", limit=32)),
        renewal_path=renewal,
    )


def _server(text: str) -> str:
    match = _SERVER.fullmatch(text)
    port = int(match.group(2) or MYPROXY_PORT) if match else 0
    if match is None or not 1 <= port <= 65535:
        msg = "myproxy is not HOST or HOST:PORT"
        raise FieldError(msg)
    return f"{match.group(1)}:{port}"


def _binding(word: str) -> TokenBinding:
    try:
        return TokenBinding(word or "none")
    except ValueError as error:
        msg = f"myproxyTokenBinding is {word!r}, which this pilot does not know"
        raise FieldError(msg) from error
