"""What can go wrong while an asset is built."""


class BundlingError(Exception):
    """An asset could not be built; the message says why and what helps."""
