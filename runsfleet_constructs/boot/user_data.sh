#!/bin/bash
# runsfleet: get the agent, check it, run it. However this ends, the instance ends (launch templates
# turn a shutdown into a termination). It runs in cloud-init's last stage, so that unattended
# upgrades, which wait for that, never lock apt under a job.
set -euo pipefail

end() {
  status=$?
  trap - EXIT
  echo "runsfleet: ended with status $status, shutting down"
  shutdown -h now || poweroff || poweroff -f
  exit "$status"
}
trap end EXIT

#VARIABLES#
export HOME="${HOME:-/root}"
home="${RUNSFLEET_HOME:-/opt/runsfleet}"
mkdir -p "$home"

find_python() {
  for name in python3.14 python3.13 python3.12 python3.11 python3; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}
if ! python="$(find_python)"; then
  echo "runsfleet: installing python"
  if command -v dnf >/dev/null; then
    timeout 300 dnf install -y -q python3.11 libicu
  else
    timeout 300 apt-get update -q && timeout 300 apt-get install -y -q python3
  fi
  python="$(find_python)"
fi

#SETUP#
"$python" -I - "$home/agent" <<'FETCH_AGENT'
#FETCH_AGENT#
FETCH_AGENT

# not exec: this shell has to outlive the agent to end the instance, and hands a stop on to it
cd "$home"
PYTHONPATH="$home/agent" "$python" -m runsfleet_runtime.agent &
agent=$!
trap 'kill -TERM "$agent" 2>/dev/null || true' TERM INT HUP
while status=0; wait "$agent" || status=$?; kill -0 "$agent" 2>/dev/null; do :; done
exit "$status"
