#!/usr/bin/env bash
# Registers this runner with a token, or removes it: ./config.sh [remove] --unattended ...
set -u
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
if [ "$(id -u)" -eq 0 ] && [ -z "${RUNNER_ALLOW_RUNASROOT:-}" ]; then
  echo "Must not run with sudo"
  exit 1
fi
case "${1:-}" in
  remove) shift; exec ./bin/Runner.Listener remove "$@" ;;
  --version) exec ./bin/Runner.Listener --version ;;
  *) exec ./bin/Runner.Listener configure "$@" ;;
esac
