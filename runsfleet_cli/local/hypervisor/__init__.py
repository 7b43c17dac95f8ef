"""EC2's part in the local cloud: what the fleet launched boots, lives and ends here.

Example:
    >>> hypervisor = Hypervisor(HypervisorSettings(directory=..., endpoint=interceptor.url), ec2)
    >>> gaps.instances.subscribe(hypervisor.on_change)
    >>> await hypervisor.start()
    >>> ...
    >>> await hypervisor.stop()
"""

from runsfleet_cli.local.hypervisor.ec2 import Ec2
from runsfleet_cli.local.hypervisor.hypervisor import (
    Hypervisor,
    HypervisorSettings,
    UnknownInstanceError,
)
from runsfleet_cli.local.hypervisor.machine import Machine, MachineState

__all__ = [
    "Ec2",
    "Hypervisor",
    "HypervisorSettings",
    "Machine",
    "MachineState",
    "UnknownInstanceError",
]
