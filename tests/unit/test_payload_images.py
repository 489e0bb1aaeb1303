"""Container images that payloads name: started from the site's directories only, never fetched, never left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pilot.assembly_identity import walls_of
from pilot.config import load_config
from pilot.errors import ConfigurationError, GatewayTimeoutError, PayloadInvalidError, PayloadStartError
from pilot.execution.command import refuse_container
from pilot.identity.same_account import SameAccountGateway, SameAccountOptions, Walls
from pilot.model import NoCredential
from tests.support.world import World, a_payload

SITE = """
site: {queue: Q}
dispatcher: {url: "https://localhost:1"}
pilot: {vo: testvo}
identity: {switch: never, gateway: GATEWAY, IMAGE images: [/cvmfs/images, /opt/own/]}
credentials: {sources: {user: none}}
"""


def config(tmp_path: Path, gateway: str, image: str):
    path = tmp_path / "site.yaml"
    path.write_text(SITE.replace("GATEWAY", gateway).replace("IMAGE", image))
    return load_config([str(path)], {}, []).config


@pytest.mark.parametrize("image", ["", "/cvmfs/images/a.sif", "/cvmfs/images/team/b", "/opt/own/c"])
def test_images_below_the_sites_directories_are_accepted(image: str) -> None:
    """A payload without an image, and one with an image from a listed directory, may run."""
    refuse_container(replace(a_payload(), container=image), ("/cvmfs/images", "/opt/own/"))


@pytest.mark.parametrize(
    "image",
    [
        *("docker://debian:12", "debian", "images/a.sif", "library://x/y"),
        *("/cvmfs/images", "/cvmfs/images/", "/cvmfs/images-of-others/a", "/etc/passwd", "/"),
        *("/cvmfs/images/../../etc/x", "/cvmfs/images/./a", "/cvmfs/images//a", "//cvmfs/images/a", "/cvmfs/images/a/.."),
    ],
)
def test_other_images_are_refused(image: str) -> None:
    """Whatever is not plainly below a listed directory is refused, and so is every image where nothing is listed."""
    for images in ((), ("/cvmfs/images", "/opt/own")):
        with pytest.raises(PayloadInvalidError) as caught:
            refuse_container(replace(a_payload(), container=image), images)
        assert caught.value.reason == "container"


def test_the_payloads_image_is_in_the_call(tmp_path: Path) -> None:
    """With apptainer the payload's image takes the place of the site's, in the call and in what is said of its failure."""
    walls = walls_of(config(tmp_path, "apptainer", "image: /site.sif,"))
    assert walls is not None
    assert walls.around is not None
    place = SimpleNamespace(code="/run/code", path="/run/payload")
    own, other = (made.argv(place, ["/py", "x"]) for made in (walls, walls.around("/cvmfs/images/a")))
    assert own[-3:] == ["/site.sif", "/py", "x"]
    assert other == [*own[:-3], "/cvmfs/images/a", "/py", "x"]


def test_a_bad_image_of_a_payload_does_not_count_against_the_site(tmp_path: Path) -> None:
    """A failure that would be the site's with its own image is the payload's with the payload's; a hang stays a hang."""
    walls = walls_of(config(tmp_path, "apptainer", "image: /site.sif,"))
    assert walls is not None
    assert walls.around is not None
    explain = walls.around("/cvmfs/images/a").explain
    for code, said in ((255, "FATAL: not an image"), (1, "SyntaxError")):
        assert isinstance(explain(code, said), PayloadStartError)
        assert not isinstance(walls.explain(code, said), PayloadStartError)
    assert isinstance(explain(None, ""), GatewayTimeoutError)


def test_images_need_apptainer(tmp_path: Path) -> None:
    """A list of directories for a gateway that starts no images is a configuration error."""
    with pytest.raises(ConfigurationError, match=r"identity\.images"):
        config(tmp_path, "bwrap", "")


def test_the_gateway_starts_the_payloads_image_or_nothing(tmp_path: Path) -> None:
    """The gateway itself never starts a payload without its image, whatever was planned before."""
    payload = replace(a_payload(), container="/cvmfs/images/a")
    plain = Walls(name="w", argv=lambda _place, command: command, environment={}, explain=lambda _code, said: PayloadStartError(said))
    for walls in (None, plain):
        gateway = SameAccountGateway(SameAccountOptions(run_dir=tmp_path, walls=walls))
        with pytest.raises(PayloadInvalidError), gateway.board(payload, NoCredential(owner="nobody"), World().watch):
            pass

    def around(image: str) -> Walls:
        raise PayloadStartError(image)

    gateway = SameAccountGateway(SameAccountOptions(run_dir=tmp_path, walls=replace(plain, around=around)))
    with pytest.raises(PayloadStartError, match="/cvmfs/images/a"), gateway.board(payload, NoCredential(owner="nobody"), World().watch):
        pass
