"""``python -m runsfleet_runtime.agent``: run the agent, and end the instance whatever happens.

Only the standard library is needed for the guard: a broken package must end the instance too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.clock import SignalClock
from runsfleet_runtime.agent.heartbeat import Heartbeat, beat_interval
from runsfleet_runtime.contract.paths import AGENT_HOME, HEARTBEAT_FILE
from runsfleet_runtime.telemetry.log import configure, get_logger
from runsfleet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping


# as in the platforms' modules, which may be what is broken
POWER_OFF = ["shutdown", "/s", "/f", "/t", "0"] if os.name == "nt" else ["shutdown", "-h", "now"]


SILENCE_VARIABLE = "RUNSFLEET_WATCHDOG_SILENCE_SECONDS"
_SILENCE_SECONDS = 300.0


def _live(environ: Mapping[str, str]) -> None:
    home = Path(environ.get("RUNSFLEET_HOME") or AGENT_HOME)
    silence = float(environ.get(SILENCE_VARIABLE) or _SILENCE_SECONDS)
    Heartbeat(home / HEARTBEAT_FILE, beat_interval(silence)).start()


def main(environ: Mapping[str, str]) -> int:
    """Run the agent.

    Args:
        environ: Usually ``os.environ``.

    Returns:
        0 when the instance's end was accepted by EC2 or by the system, 1 when it had to be ended
        because the agent could not even begin.
    """
    try:
        clock = SignalClock()
        clock.listen()
        configure(service="agent", version=__version__, fleet=environ.get("RUNSFLEET_FLEET", ""))
        _live(environ)
        # inside the guard: it imports everything else
        from runsfleet_runtime.agent.composition import compose

        compose(environ, clock).run()
    except BaseException:  # noqa: BLE001  the instance ends, whatever it was
        get_logger("agent").critical("the agent failed, shutting down", exc_info=True)
        subprocess.run(POWER_OFF, check=False, timeout=60, env=dict(environ))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
