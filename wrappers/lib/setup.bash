# Set-up shared by the demo and the tests: Debian packages (as root on Debian), a virtual environment. Sourced, not run.

say() { printf '%s\n' "$*" >&2; }
die() { say "cannot continue: $*"; exit 75; }

# packages the testbed's real servers and the gLExec emulation need
TESTBED_PACKAGES=(python3 python3-venv gcc libc6-dev libssl-dev openssl myproxy-server libmyproxy-voms voms-clients libpam-wrapper util-linux)
# further ones that only tests use, as oracles
# shellcheck disable=SC2034 # tests/run uses it
TEST_PACKAGES=(myproxy globus-proxy-utils procps curl shellcheck sudo bubblewrap liblcmaps0
  lcmaps-plugins-basic-{poolaccount,localaccount,bandn} lcmaps-plugins-verify-proxy lcmaps-plugins-voms
  munge slurmctld slurmd slurm-client gridengine-{master,exec,client} msmtp-mta bsd-mailx
  nordugrid-arc-{arex,arcctl,arcctl-service,client,plugins-arcrest})
# what the packages would ask: Grid Engine gets no cell on the host, the tests make their own
# shellcheck disable=SC2034 # tests/run uses it
TEST_ANSWERS=(gridengine-{common,client,exec,master}\ shared/gridengine{'config boolean false','master string localhost','cell string default'})

is_debian_root() { [ "$(id -u)" -eq 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null; }

missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
  done
}

# answer_questions LINE...: what the installation of packages is to assume, as debconf-set-selections reads it
answer_questions() { if is_debian_root; then printf '%s\n' "$@" | debconf-set-selections; fi; }

# install_packages NAME...: lists what is missing, then installs it without recommended packages and without starting services
install_packages() {
  is_debian_root || return 0
  local missing policy=/usr/sbin/policy-rc.d made_policy= log apt rc=0
  mapfile -t missing < <(missing_packages "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0
  say "installing Debian packages: ${missing[*]}"
  log=$(mktemp "${TMPDIR:-/tmp}/pilot-apt-XXXXXXXXXX") || die "no temporary file can be made; set TMPDIR"
  if [ ! -e "$policy" ]; then
    # Forbids package scripts to start services as long as this shell or its apt lives; removes itself when asked later.
    # shellcheck disable=SC2016 # text of a script
    printf '#!/bin/sh\n{ [ -d /proc/%s ] || pgrep -x apt-get >/dev/null; } && exit 101\nrm -f "$0"\nexit 0\n' "$$" >"$policy"
    chmod 755 "$policy" && made_policy=1
  fi
  (
    trap '' TERM HUP INT # a half-configured package is worse than a late end
    apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"
  ) </dev/null >"$log" 2>&1 &
  apt=$!
  trap 'interrupted=1' TERM HUP INT
  while kill -0 "$apt" 2>/dev/null; do wait "$apt"; done
  wait "$apt" || rc=$?
  trap - TERM HUP INT
  [ -z "$made_policy" ] || rm -f "$policy"
  if [ "$rc" -ne 0 ]; then
    tail -n 15 "$log" >&2
    die "apt-get failed (exit $rc); see $log, or install by hand: ${missing[*]}"
  fi
  rm -f "$log"
  [ -z "${interrupted:-}" ] || { say "interrupted; the packages are installed"; exit 130; }
}

# find_python: prints a Python 3.11+ with venv; one that other accounts can reach is preferred
find_python() {
  local candidate
  for candidate in "${PILOT_BASE_PYTHON:-}" /usr/bin/python3 python3.13 python3.12 python3.11 python3; do
    # shellcheck disable=SC2015 # an empty answer is to continue too
    [ -n "$candidate" ] && candidate=$(command -v "$candidate") || continue
    "$candidate" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { printf '%s\n' "$candidate"; return 0; }
  done
  return 1
}

# make_venv DIR EXTRA: virtual environment in DIR with the project and its extra (empty, or "test"); quick when nothing changed
make_venv() {
  local dir=$1 extra=$2 python stamp log
  stamp=$(cat "$PROJECT/pyproject.toml" "$PROJECT/wrappers/lib/setup.bash" | cksum)
  [ "$(cat "$dir/.stamp-$extra" 2>/dev/null)" = "$stamp" ] && return 0
  python=$(find_python) || die "no Python 3.11 or newer with venv; install python3 and python3-venv"
  say "making the virtual environment $dir with $python"
  log=$(mktemp "${TMPDIR:-/tmp}/pilot-pip-XXXXXXXXXX") || die "no temporary file can be made; set TMPDIR"
  # shellcheck disable=SC2064 # the name is known now
  trap "rm -f '$log'; exit 130" TERM HUP INT
  [ -x "$dir/bin/python" ] || "$python" -m venv "$dir" >"$log" 2>&1 ||
    die "cannot make a virtual environment in $dir ($(tail -n 1 "$log")); set PILOT_VENV to a place that this account may write; $log has more"
  "$dir/bin/python" -I -m pip install --quiet --disable-pip-version-check --editable "$PROJECT${extra:+[$extra]}" </dev/null >"$log" 2>&1 ||
    die "pip could not install the dependencies; is a Python package index reachable, or named by PIP_INDEX_URL? $log has more"
  trap - TERM HUP INT
  rm -f "$log"
  printf '%s\n' "$stamp" >"$dir/.stamp-$extra"
  [ -z "$extra" ] || printf '%s\n' "$stamp" >"$dir/.stamp-"
}
