"""The gateway that the configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from pilot.assembly_common import journal_directory, scratch_directory
from pilot.config import Config
from pilot.errors import ConfigurationError, PilotError
from pilot.identity import apptainer_contract, bwrap_contract
from pilot.identity.courier_options import CourierOptions
from pilot.identity.same_account import SameAccountGateway, SameAccountOptions, Walls
from pilot.isolation import SYSTEM, Confinement, level_of
from pilot.model import PilotIdentity
from pilot.ports import Gateway
from pilot.rundir import RunDirectory


def gateway_for(config: Config, environ: Mapping[str, str], pilot: PilotIdentity, run: RunDirectory) -> Gateway:
    """The site's gateway. Unswitched only where the site never configured one and policy allows it."""
    courier = CourierOptions(
        trust=config.staging.trust,
        ca_dir=config.trust.ca_dir,
        ca_bundle=config.staging.ca_bundle,
        crl=config.trust.crl,
        http_hosts=config.payload.url_hosts,
    )
    identity = config.identity
    confinement = confinement_of(config)
    if identity.switch == "never" or identity.gateway == "none":
        return SameAccountGateway(
            SameAccountOptions(
                run_dir=run.path,
                python=identity.python,
                timeout_s=identity.timeout_s,
                courier=courier,
                confinement=confinement,
                walls=walls_of(config),
            )
        )
    # Beside the journal: it outlives the pilot as well.
    records = journal_directory(config, environ, scratch_directory(config, str(run.path))).path
    if identity.gateway == "sudo":
        from pilot.identity.sudo import SudoGateway, SudoOptions

        return SudoGateway(
            SudoOptions(
                run_dir=run.path,
                records=records,
                accounts=identity.sudo_accounts,
                sudo=identity.sudo,
                python=identity.python,
                timeout_s=identity.timeout_s,
                courier=courier,
                confinement=confinement,
            )
        )
    if pilot.credential is None:
        message = "cannot switch accounts through gLExec: it is called with the pilot's proxy, and this pilot has a bearer token only"
        raise ConfigurationError(f"{message}; give it a proxy as well", reason="proxy-beside-token")
    from pilot.identity.glexec import GlexecGateway, GlexecOptions, find_glexec

    return GlexecGateway(
        GlexecOptions(
            run_dir=run.path,
            records=records,
            python=identity.python,
            timeout_s=identity.timeout_s,
            courier=courier,
            confinement=confinement,
            glexec=find_glexec(identity.glexec, environ),
            pilot_proxy=pilot.credential.path,
            retries=identity.retries,
        )
    )


def confinement_of(config: Config) -> Confinement:
    """What payloads may reach; the CA directory is shown to them, so they must be able to read it."""
    return Confinement(
        landlock=config.payload.landlock == "auto",
        readable=(*SYSTEM, config.trust.ca_dir, *config.payload.readable),
        writable=config.payload.writable,
        minimum=level_of(config.identity.minimum_isolation),
    )


def walls_of(config: Config) -> Walls | None:
    """The walls that the site's gateway builds; storage in directories is shown to the courier, and so to payloads without Landlock."""
    identity = config.identity
    storage = tuple(url.removeprefix("file://") for url in config.staging.endpoints.values() if url.startswith("file://"))
    writable = (*storage, *config.payload.writable)
    own = (*filter(None, (config.trust.ca_dir, config.staging.ca_bundle)), *config.payload.readable)
    if identity.gateway == "bwrap":
        return Walls(
            name="bwrap",
            argv=lambda place, command: bwrap_contract.call_argv(
                identity.bwrap, command, program=str(place.code), place=str(place.path), readable=(*SYSTEM, *own), writable=writable
            ),
            environment=bwrap_contract.ENVIRONMENT,
            explain=partial(bwrap_contract.call_error, command=identity.python, limit_s=identity.timeout_s),
        )
    if identity.gateway == "apptainer":
        build = partial(_image_walls, config, own, writable)
        walls = build(identity.image, apptainer_contract.call_error)
        return replace(walls, around=lambda image: build(image, apptainer_contract.image_error))
    return None


def _image_walls(
    config: Config, readable: tuple[str, ...], writable: tuple[str, ...], image: str, explain: Callable[..., PilotError]
) -> Walls:
    """Apptainer's walls around one image."""
    identity = config.identity
    return Walls(
        name="apptainer",
        argv=lambda place, command: apptainer_contract.call_argv(
            identity.apptainer, image, command, program=str(place.code), place=str(place.path), readable=readable, writable=writable
        ),
        environment=apptainer_contract.ENVIRONMENT,
        explain=partial(explain, image=image, command=identity.python, limit_s=identity.timeout_s),
    )
