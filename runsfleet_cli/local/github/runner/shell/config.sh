#!/usr/bin/env bash
# Registers this runner with a token, or removes it: ./config.sh [remove] --unattended ...
set -u
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
case "${1:-}" in
  remove) shift; exec ./bin/Runner.Listener remove "$@" ;;
  --version) exec ./bin/Runner.Listener --version ;;
  *) exec ./bin/Runner.Listener configure "$@" ;;
esac
