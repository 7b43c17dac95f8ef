#!/usr/bin/env bash
# Starts the listener and decides whether to start it again. As with the real run.sh the exit code
# says nothing of the job: 2 (and 3, 4: updating) starts again, 7 is passed on, all else becomes 0.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

if [ "$(id -u)" -eq 0 ] && [ -z "${RUNNER_ALLOW_RUNASROOT:-}" ]; then
  echo "Must not run interactively with sudo"
  exit 1
fi

listener_pid=
forward() {
  [ -n "$listener_pid" ] && kill -INT "$listener_pid" 2>/dev/null
}

while :; do
  if [ -n "${RUNNER_MANUALLY_TRAP_SIG:-}" ]; then
    trap forward INT TERM
    ./bin/Runner.Listener run "$@" &
    listener_pid=$!
    wait "$listener_pid"
    code=$?
    # a trapped signal ends `wait` early: wait on until the listener is gone
    while kill -0 "$listener_pid" 2>/dev/null; do
      wait "$listener_pid"
      code=$?
    done
  else
    ./bin/Runner.Listener run "$@"
    code=$?
  fi
  case $code in
    0) echo "Runner listener exit with 0 return code, stop the service, no retry needed." ; exit 0 ;;
    1) echo "Runner listener exit with terminated error, stop the service, no retry needed." ; exit 0 ;;
    2) echo "Runner listener exit with retryable error, re-launch runner in 5 seconds." ; sleep 5 ;;
    3|4) echo "Runner listener exit because of updating, re-launch runner after successful update" ; sleep 5 ;;
    5) echo "Runner listener exit with Session Conflict error, stop the service, no retry needed." ; exit 0 ;;
    7) echo "Runner listener exit with deprecated version error code: 7." ; exit 7 ;;
    *) echo "Exiting with unknown error code: $code" ; exit 0 ;;
  esac
done
