# Shared by the scripts beside it; read with `. "$(dirname "$0")/lib.sh"`. POSIX sh.
# Leaves the working directory at the project's root. Every failure is one sentence and an exit code.

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit 1
cd "$ROOT" || exit 1

fail() {
  printf '%s\n' "$1" >&2
  exit "${2:-1}"
}

# Whether $1 runs and is Python 3.11, 3.12 or 3.13: a shim of pyenv may be there and not run.
is_usable_python() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if is_usable_python "$candidate"; then
      command -v "$candidate"
      return 0
    fi
    if [ "$candidate" = "${PYTHON:-}" ]; then
      fail "PYTHON is $PYTHON, which is no Python 3.11, 3.12 or 3.13." 69
    fi
  done
  fail "Handrail needs Python 3.11, 3.12 or 3.13, and none was found; name one with PYTHON=/path/to/python3." 69
}

# set_up LOCK… : a virtual environment with the locked packages, in .venv or $VENV. It is filled again
# only when a lock or the interpreter changed. Sets $PY to its interpreter.
set_up() {
  VENV=${VENV:-$ROOT/.venv}
  PY=$VENV/bin/python
  if ! is_usable_python "$PY"; then
    base=$(find_python) || exit $?
    "$base" -c 'import venv, ensurepip' 2>/dev/null ||
      fail "$base has no venv module; on Debian and Ubuntu: apt install python3-venv." 69
    "$base" -m venv --clear "$VENV" >/dev/null || fail "No virtual environment could be made in $VENV." 73
  fi
  stamp=$VENV/.handrail-$(printf '%s-' "$@")stamp
  wanted=$({ "$PY" -V; cat -- "$@"; } | cksum)
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    printf 'Installing the packages of %s …\n' "$*" >&2
    install_locks "$@"
    printf '%s\n' "$wanted" >"$stamp"
  fi
  export PY VENV
}

install_locks() {
  log=$VENV/.handrail-install.log
  if command -v uv >/dev/null 2>&1; then
    set -- uv pip install --quiet --python "$PY" $(printf ' -r %s' "$@")
  else
    set -- "$PY" -m pip install --quiet --disable-pip-version-check $(printf ' -r %s' "$@")
  fi
  "$@" >"$log" 2>&1 && return 0
  tail -n 5 "$log" >&2
  if grep -qiE 'connection|network|resolve|timed out|no matching distribution|failed to fetch' "$log"; then
    fail "The packages could not be fetched: is there a network, and a package index that pip can reach?" 69
  fi
  fail "The packages could not be installed; the whole story is in $log." 70
}

# Defaults for a server on one's own machine; what is set already stays.
use_development_defaults() {
  DEBUG=${DEBUG:-1}
  export DEBUG
}

# require_free_port HOST PORT
require_free_port() {
  "$PY" - "$1" "$2" <<'PYTHON' || fail "Port $2 on $1 is taken; name another one with --port." 98
import socket
import sys

family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family) as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((sys.argv[1], int(sys.argv[2])))
    except OSError:
        sys.exit(1)
PYTHON
}
