"""A real ARC A-REX with its fork back end on one machine, with a test CA of its own (measured with Debian 12's 6.17)."""

from __future__ import annotations

import pwd
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.batch_systems import START_S, Ended, Tools, until

ACCOUNT = "pilot01"
PORT = 8443
CONF = f"""[common]
hostname = localhost
x509_host_key = {{d}}/hostkey.pem
x509_host_cert = {{d}}/hostcert.pem
x509_cert_dir = {{d}}/certs
[authgroup:all]
all = yes
[mapping]
map_to_user = all {ACCOUNT}:{ACCOUNT}
[lrms]
lrms = fork
[arex]
controldir = {{d}}/control
sessiondir = {{d}}/session
logfile = {{d}}/log/arex.log
joblog = {{d}}/log/jobs.log
pidfile = {{d}}/run/arex.pid
mail = root@localhost
wakeupperiod = 2
infoproviders_timelimit = 60
fixdirectories = missing
tmpdir = {{d}}/tmp
[arex/ws]
wsurl = https://localhost:{PORT}/arex
logfile = {{d}}/log/ws.log
pidfile = {{d}}/run/ws.pid
[arex/ws/jobs]
allowaccess = all
[infosys]
logfile = {{d}}/log/infoprovider.log
[infosys/glue2]
[infosys/cluster]
[queue:fork]
"""


class Arc:
    """A-REX with its web service; jobs of the one account that its mapping knows."""

    wrapper = "batch/arc.sh"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tools = Tools(
            directory, {"ARC_CONFIG": str(directory / "arc.conf"), "HOME": str(directory / "home"), "TMPDIR": str(directory / "tmp")}
        )
        account = pwd.getpwnam(ACCOUNT)
        self._uid = account.pw_uid
        self._client = Tools(
            directory, {"X509_CERT_DIR": str(directory / "certs"), "HOME": account.pw_dir, "X509_USER_PROXY": f"{account.pw_dir}/proxy"}
        )
        self._services: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Make the CA, start the two services; returns when the web service accepts connections."""
        place = self._directory
        for name in ("control", "session", "log", "run", "certs", "home", "tmp"):
            (place / name).mkdir(mode=0o755)
        for name in ("session", "tmp"):
            (place / name).chmod(0o1777)
        ca = ("arcctl", "test-ca", "--ca-dir", str(place / "certs"), "--ca-id", "Lab")
        self._tools.run(*ca, "init")
        self._tools.run(*ca, "hostcert", "-n", "localhost", "-f")
        self._tools.run(*ca, "usercert", "-n", ACCOUNT, "-i", ACCOUNT, "--no-auth", "-f")
        for kind in ("cert", "key"):
            (place / f"host-localhost-{kind}.pem").rename(place / f"host{kind}.pem")
        # Otherwise the service computes parameters of 4096 bits.
        group = ("-algorithm", "DH", "-pkeyopt", "group:ffdhe2048")
        self._tools.run("openssl", "genpkey", "-genparam", *group, "-out", str(place / "control" / "dhparam.pem"))
        (place / "arc.conf").write_text(CONF.format(d=place))
        self._serve("arc-arex-start")
        until(lambda: self._logged("arex.log") or None, "A-REX's first log line", START_S)
        self._serve("arc-arex-ws-start")
        until(_accepts, "ARC's web service", START_S)
        self._client.run("arcproxy", "-c", "validityPeriod=1H", uid=self._uid)

    def _serve(self, program: str) -> None:
        with (self._directory / "log" / f"{program}.out").open("wb") as told:
            self._services.append(
                subprocess.Popen(
                    ["/bin/bash", f"/usr/share/arc/{program}"],
                    env=self._tools.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=told,
                    stderr=told,
                    cwd=self._directory,
                    process_group=0,
                )
            )

    def _logged(self, name: str) -> str:
        path = self._directory / "log" / name
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        """End the services, the web service first; what is left ends with the namespace."""
        for service in reversed(self._services):
            service.terminate()
            with suppress(subprocess.TimeoutExpired):
                service.wait(5)

    def submit(self, argv: Sequence[str], place: Path, uid: int, environment: Mapping[str, str], *options: str) -> str:
        """`arcsub` of a script that sets the environment and becomes the command; returns the job's URL."""
        assert uid == self._uid, "ARC's mapping knows one account"
        exports = "".join(f"export {name}='{value}'\n" for name, value in environment.items())
        script = place / "job.sh"
        script.write_text(f"{exports}exec {' '.join(quoted(word) for word in argv)} >> {place}/stdout 2>> {place}/stderr\n")
        description = place / "job.xrsl"
        description.write_text(f'&(executable="/bin/sh")(arguments="{script}")(jobname="pilot"){"".join(options)}')
        fixed = ("-C", f"https://localhost:{PORT}/arex", "-T", "arcrest", "-Q", "NONE")
        told = self._client.run("arcsub", *fixed, str(description), uid=uid)
        return re.search(r"jobid: (\S+)", told)[1]  # type: ignore[index]

    def cancel(self, job: str) -> None:
        """Not played: `arckill` was seen to say that the job is finished while all its processes went on."""
        raise NotImplementedError

    kill = cancel

    def limit(self, job: str, seconds: int) -> None:
        """The fork back end knows no limits."""
        raise NotImplementedError

    def requeue(self, job: str) -> None:
        """ARC has no requeue."""
        raise NotImplementedError

    def ended(self, job: str, timeout_s: float) -> Ended:
        """How the job ended, by A-REX's own log and diagnostics: what clients are told lags behind by a minute."""
        number = job.rpartition("/")[2]

        def final() -> Ended | None:
            if f"{number}: State: FINISHED" not in self._logged("arex.log"):
                return None
            diagnosis = (self._directory / "control" / f"job.{number}.diag").read_text()
            (code,) = re.findall(r"^exitcode=(\d+)$", diagnosis, re.MULTILINE)
            return Ended("FINISHED", int(code), 0, 0)

        return until(final, f"the end of job {number}", timeout_s)


def quoted(word: str) -> str:
    """A word for /bin/sh."""
    return "'" + word.replace("'", "'\\''") + "'"


def _accepts() -> bool | None:
    with suppress(OSError), socket.create_connection(("127.0.0.1", PORT), timeout=2):
        return True
    return None
