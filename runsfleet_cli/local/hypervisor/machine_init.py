"""The first process of a local instance: runs its user data and ends all that came of it.

Run by path by `machine.py`, on its own: standard library only. Whatever the user data starts, in
whatever session, stays below this process (Linux: it is made the reaper of orphans), so that
nothing of an instance outlives it. Its standard input is the power switch: the line `stop SECONDS`
is the button (SIGTERM, then SIGKILL after so many seconds), the end of the pipe is the plug
(SIGKILL at once), which is also what happens when the local cloud itself dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.02
# what forks while it is being killed shows up in the next round
_MOST_ROUNDS = 200


def _become_reaper() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _parents() -> dict[int, int]:
    """The parent of each process of this machine that is alive (zombies are not)."""
    found: dict[int, int] = {}
    if sys.platform != "linux":
        listing = subprocess.run(
            ["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=False
        ).stdout
        for line in listing.splitlines():
            pid, up, status = line.split()[:3]
            if not status.startswith("Z"):
                found[int(pid)] = int(up)
        return found
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if state != "Z":
            found[int(entry.name)] = int(parent)
    return found


def _descendants() -> set[int]:
    parents = _parents()
    below = {os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in below} - below
        below |= more
        grown = bool(more)
    return below - {os.getpid()}


def _signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _end(grace: float) -> None:
    if grace > 0:
        _signal_all(_descendants(), signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and _descendants():
            time.sleep(_POLL_SECONDS)
    for _ in range(_MOST_ROUNDS):
        left = _descendants()
        if not left:
            break
        _signal_all(left, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    os._exit(0)


def _obey() -> None:
    for line in sys.stdin:
        words = line.split()
        if words[:1] == ["stop"]:
            _end(float(words[1]))
    _end(0.0)


def main() -> None:
    """Run the script that is the first argument, and wait for the switch."""
    _become_reaper()
    # signals are for the instance's processes, this one obeys the switch alone; a handler and not
    # SIG_IGN, which the user data would inherit
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen([sys.argv[1]], stdin=subprocess.DEVNULL)
    threading.Thread(target=_obey, daemon=True).start()
    said = False
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            # nothing runs any more, but the instance does until somebody ends it
            time.sleep(3600)
            continue
        if pid == child.pid and not said:
            said = True
            code = os.waitstatus_to_exitcode(status)
            sys.stdout.write(f"cloud-init: user data ended with status {code}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
