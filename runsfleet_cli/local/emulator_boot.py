"""Starts the emulator inside its own environment, and ends it with whoever started it.

Run by path by `emulator.py` on the emulator's interpreter: standard library and ministack only,
never runsfleet. Its last argument is the port to listen on. Its standard input is a pipe that the
starting process holds open and never writes to. When that process ends, however it ends, the pipe
reads as closed, and the whole process group goes: the emulator and every Lambda worker it made. (A
parent-death signal would follow the *thread* that forked, would not reach the workers, and exists
on Linux alone.)
"""

import importlib
import os
import signal
import sys
import threading
import time

# workers get to finish a log line; nothing here is worth waiting longer for
_GRACE_SECONDS = 1.0


def _end_with_parent() -> None:
    # not through sys.stdin: its lock, held here, would stop the interpreter from ending by itself
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _main() -> None:
    port = sys.argv.pop()
    threading.Thread(target=_end_with_parent, daemon=True, name="end-with-parent").start()
    # found at run time: only the emulator's own environment has it
    app = importlib.import_module("ministack.app")
    # with TLS it would also take port 443 of this machine, which no client here asks for
    vars(app)["_port_is_bindable"] = lambda *_: False
    # GATEWAY_PORT goes into the URLs that it hands out (queues, APIs, custom resources' answers):
    # those name the interceptor's port, while the emulator itself listens on its own
    vars(app)["_resolve_port"] = lambda: port
    _take_events_of_services()
    app.main()


def _take_events_of_services() -> None:
    """Let the hypervisor publish `aws.*` events; clients' are refused by the interceptor."""
    events = importlib.import_module("ministack.services.eventbridge")
    put = vars(events)["_put_events"]
    vars(events)["_put_events"] = lambda data, **_: put(data, allow_aws_source=True)


if __name__ == "__main__":
    _main()
