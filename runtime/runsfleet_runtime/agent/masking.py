"""What must never be shown, taken out of every line that leaves the agent.

Two nets: the secrets that the agent was told (exact, :meth:`Masker.learn`), and the shapes of those
that a job may print (tokens of GitHub, keys of AWS, private keys, JWTs). GitHub masks a job's own
secrets in the job's log, but not in the runner's output and diagnostics.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from typing import Final

MASK: Final = "***"
SHORTEST_SECRET: Final = 6
"""A shorter text would blot out ordinary words."""

_MOST_NESTED = 64 * 1024  # a JIT configuration has about 3 KB

# from the most telling to the most general; what follows a name keeps the name
_SHAPES: Final = re.compile(
    r"""
      -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    | \bgithub_pat_[A-Za-z0-9_]{20,}
    | \bgh[oprsu]_[A-Za-z0-9_.\-]{16,}             # ghs_<app>_<JWT> is longer than 40 characters
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \bey[IJ][A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}      # a JWT
    | \bey[IJ][A-Za-z0-9+/]{200,}={0,2}            # base64 of a large JSON object: a JIT config
    | (?P<name>
        (?:aws[_-]?)?(?:secret[_-]?access[_-]?key|session[_-]?token)\\?["']?\s*[:=]\s*\\?["']?
        | \bbearer[ ]
        | \bACTIONS_RUNNER_INPUT_(?:TOKEN|JITCONFIG|PAT)\s*[:=]\s*
        | --(?:token|jitconfig|pat)[ =]
      )[A-Za-z0-9+/=_.\-]{8,}
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


class Masker:
    """Takes secrets out of text.

    Example:
        >>> mask = Masker()
        >>> mask.learn("hunter22")
        >>> mask("the token is hunter22")
        'the token is ***'
    """

    def __init__(self) -> None:
        self._secrets: tuple[str, ...] = ()

    def learn(self, *secrets: str) -> None:
        """Take these out from now on, and what a JIT configuration holds inside.

        Args:
            secrets: Texts; those under 6 characters are left alone.
        """
        found = set(self._secrets)
        for secret in secrets:
            found.update(part for part in (secret, *_inside(secret)) if len(part) > SHORTEST_SECRET)
        # a secret that is part of another must not leave the other's rest behind
        self._secrets = tuple(sorted(found, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return _SHAPES.sub(lambda match: (match["name"] or "") + MASK, text)


def _inside(secret: str) -> list[str]:
    """Return the files in a JIT configuration, and the numbers of the private key among them."""
    found: list[str] = []
    for content in _strings(secret):
        found.append(content)
        found += [value for value in _strings(content) if len(value) > 40]  # noqa: PLR2004  a key's
    return found


def _strings(encoded: str) -> list[str]:
    """Return the texts in a JSON object that was encoded by base64; none if it is none."""
    if len(encoded) > _MOST_NESTED:
        return []
    try:
        found = json.loads(base64.b64decode(encoded, validate=True))
    except ValueError:  # also malformed base64 and UTF-8
        return []
    return [v for v in found.values() if isinstance(v, str)] if isinstance(found, dict) else []


class MaskingFormatter(logging.Formatter):
    """Formats as another does, without secrets.

    Args:
        inner: The other; ``None`` for the standard one.
        mask: Takes secrets out.
    """

    def __init__(self, inner: logging.Formatter | None, mask: Masker) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        """Return the masked line."""
        return self._mask(self._inner.format(record))
