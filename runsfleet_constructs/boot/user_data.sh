#!/bin/bash
# runsfleet: get the agent, check it, run it. However this ends, the instance ends (launch templates
# turn a shutdown into a termination). It runs in cloud-init's last stage, so that unattended
# upgrades, which wait for that, never lock apt under a job.
# A watchdog starts before anything else and depends on nothing that follows.
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

# It counts its own naps, since the clock of a young machine jumps. The message is for the journal.
watchdog() {
  beat=$1 limit=$2 silence=$3 lifetime=$4 alive=0 still=0 last='' why=''
  nap=$((silence < 60 ? 1 : 10))
  while [ -z "$why" ]; do
    sleep "$nap"
    alive=$((alive + nap)) still=$((still + nap))
    now="$(stat -c %Y "$beat" 2>/dev/null || stat -f %m "$beat" 2>/dev/null)"
    if [ "$now" != "$last" ]; then
      last=$now still=0 limit=$silence
    fi
    if [ "$still" -ge "$limit" ]; then why="no sign of life from the agent for $still s"; fi
    if [ "$alive" -ge "$lifetime" ]; then why="alive for $alive s, longer than any job may be"; fi
  done
  shutdown -h now "runsfleet watchdog: $why" || poweroff
  sleep 120
  poweroff -f
}
rm -f "$home/heartbeat"
watch="$(declare -f watchdog); watchdog $(printf '%q' "$home/heartbeat") \
  $RUNSFLEET_WATCHDOG_START_SECONDS $RUNSFLEET_WATCHDOG_SILENCE_SECONDS \
  $RUNSFLEET_WATCHDOG_LIFETIME_SECONDS"
unit() {
  timeout 20 systemd-run --quiet --setenv=PATH="$PATH" "$@" 2>/dev/null
}
if unit --unit=runsfleet-watchdog bash -c "$watch"; then
  # init's own timer, should even the watchdog be gone
  unit --unit=runsfleet-lifetime --on-active="$((RUNSFLEET_WATCHDOG_LIFETIME_SECONDS + 60))" \
    shutdown -h now || true
  # cloud-init runs this script once: nothing of it would be there after a reboot
  if [ "${RUNSFLEET_STANDBY:-false}" = false ]; then
    mkdir -p "$home"
    printf '[Service]\nExecStart=/bin/sh -c "shutdown -h now"\n[Install]\nWantedBy=multi-user.target\n' \
      >"$home/runsfleet-rebooted.service"
    systemctl --quiet enable "$home/runsfleet-rebooted.service" || true
  fi
else
  $(command -v setsid || true) bash -c "$watch" </dev/null >/dev/null 2>&1 &
fi
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
case "$status" in
  0 | 129 | 130 | 143) ;; # done, or told by the shutdown that it asked for
  *)
    echo "runsfleet: the agent died with status $status"
    PYTHONPATH="$home/agent" timeout 120 "$python" -m runsfleet_runtime.agent.last_words "$status" || true
    ;;
esac
exit "$status"
