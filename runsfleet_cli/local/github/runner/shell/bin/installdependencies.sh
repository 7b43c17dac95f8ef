#!/usr/bin/env bash
# The real script installs .NET's libraries; this package needs python3 and bash only.
command -v python3 >/dev/null || { echo "python3 is missing: install it" >&2; exit 1; }
