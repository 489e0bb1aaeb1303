# The run directory: where it is made, how it is removed. Part of the core; sourced, not run.

run='' software='' why='' code=0

# fits DIR: free space and free inodes are enough, as far as the file system tells them; else $why
fits() {
  local free='' inodes='' left='' number='^[0-9]+$'
  read -r free inodes left < <(timeout 10 df -k --output=avail,itotal,iavail -- "$1" 2>/dev/null | tail -n 1)
  if [[ $free =~ $number ]] && [ "$((free / 1000))" -lt "$SCRATCH_MB" ]; then
    why="has $((free / 1000)) MB free, less than $SCRATCH_MB"
    return 1
  fi
  # File systems that make inodes as they need them say 0 or nothing.
  if [[ $inodes =~ $number && $left =~ $number ]] && [ "$inodes" -gt 0 ] && [ "$left" -lt "$SCRATCH_INODES" ]; then
    why="has $left inodes free, less than $SCRATCH_INODES"
    return 1
  fi
}

# make_private DIR PREFIX: makes a directory of our own in DIR, its path in $made; one that a signal cuts off leaves nothing
make_private() {
  made=$1/$2-$(mktemp -u XXXXXXXXXX) && mkdir -m 700 -- "$made" 2>/dev/null && return
  rmdir -- "$made" 2>/dev/null
  return 1
}

# replaceable DIR: prints a directory on the way to DIR, before or behind links, in which everybody may replace files of others
replaceable() {
  local part places=()
  for part in "$1" "$(cd -P -- "$1" 2>/dev/null && pwd -P)"; do
    while [ -n "$part" ]; do
      places+=("$part")
      part=${part%/*}
    done
  done
  find -H "${places[@]}" -maxdepth 0 -perm -0002 ! -perm -1000 -print -quit 2>/dev/null
}

# try_scratch DIR: makes the run directory in it; else $why says what is wrong with it
try_scratch() {
  case $1 in /*) ;; *) why='is not an absolute path'; return 1 ;; esac
  if [ ! -d "$1" ]; then why='is not a directory'; return 1; fi
  why=$(replaceable "$1")
  if [ -n "$why" ]; then
    why="is not safe: $why lets everybody replace files of others (writable for all, not sticky)"
    return 1
  fi
  fits "$1" || return 1
  make_private "$1" pilot || { why='is not writable'; return 1; }
  run=$made
  # shellcheck disable=SC2016 # text of a script
  if ! { printf '#!/bin/sh\nexit 7\n' >"$run/probe" && chmod 700 "$run/probe"; } 2>/dev/null; then
    why='cannot be written to'
  else
    "$run/probe" 2>/dev/null
    if [ $? -eq 7 ]; then
      rm -f -- "$run/probe"
      return 0
    fi
    why='does not let programs be executed (noexec)'
  fi
  rm -rf -- "$run"
  run=''
  return 1
}

# choose_scratch: the first usable directory in the documented order; PILOT_SCRATCH is the only one if it is set
choose_scratch() {
  local name told='' names=$SCRATCH_VARIABLES
  if [ -n "${PILOT_SCRATCH:-}" ]; then names=PILOT_SCRATCH; fi
  for name in $names; do
    if [ -z "${!name:-}" ]; then continue; fi
    if try_scratch "${!name}"; then return; fi
    told="$told; $name (${!name}) $why"
  done
  fail "$CODE_SCRATCH" "cannot make a run directory: ${told#; }; set PILOT_SCRATCH to a directory that is good for it"
}

# swept: removes what may be removed without getting in the way of a far side that still cleans
swept() {
  rm -rf -- "$run"/farside-*
  rmdir -- "$run"/payload-*/work "$run"/payload-* "$run" 2>/dev/null
  [ ! -e "$run" ]
}

# remove DIR: also where a payload left directories without rights; links are removed, not followed
remove() {
  rm -rf -- "$1" 2>/dev/null && return
  chmod -R u+rwX -- "$1" 2>/dev/null
  rm -rf -- "$1" 2>/dev/null
}

# clean: after an orderly end there is no run directory any more. After SIGKILL of the pilot its private files are there; the
# far side cleans the owner's side.
clean() {
  local turn
  if [ -n "$software" ]; then remove "$software"; fi
  if [ -z "$run" ]; then return; fi
  remove "$run/pilot"
  if ! swept && [ "$code" -gt 128 ]; then
    # The far side is no child of ours, so its end cannot be waited for: looked for, 10 s at most.
    for ((turn = 0; turn < 50; turn++)); do
      sleep 0.2
      if swept; then break; fi
    done
  fi
  if [ -e "$run" ]; then remove "$run"; fi
  if [ -e "$run" ]; then say "cannot remove $run completely; what is left belongs to another account: remove it as that account or as root"; fi
}
