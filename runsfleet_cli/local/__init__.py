"""The local cloud: an AWS emulator, a stand-in for GitHub, and machines, all on this one."""
