"""What the record must not show, and what it need not show in full."""

from __future__ import annotations

import json
import re
from typing import Any

REDACTED = "[redacted]"
# an SQS body of a workflow_job message is under 2 KB; user data may be 16 KB and is not needed
MAX_STRING = 4_096

_SECRET_NAME = re.compile(
    r"secret_?(string|binary|access_?key|key|value)|password|passwd|private_?key|jit_?config"
    r"|session_?token|security_?token|registration_?token|authorization|credential"
    r"|token_?code|web_?identity_?token|^token$|^secret$|user_?data",
    re.IGNORECASE,
)
# identifiers that merely sound secret
_HARMLESS_NAME = re.compile(r"(arn|id|name|hash|sha256)$", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"gh[a-z]_[A-Za-z0-9_.\-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----"
    r"|(?<=AWSSecretKey=)[^&\s]+",
    re.DOTALL,
)
_ALWAYS = {
    ("ssm", "PutParameter"): ("Value",),
    ("kms", "Encrypt"): ("Plaintext",),
    ("iam", "CreateLoginProfile"): ("Password",),
}


def redact(service: str, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A copy without secrets, long strings cut to `MAX_STRING` characters.

    Secrets are recognised by the name of a parameter or DynamoDB attribute at any depth, inside
    JSON text (message bodies) too, and by the look of GitHub tokens and private keys in any text.

    Example:
        >>> redact("secretsmanager", "PutSecretValue", {"SecretString": "s3cret"})
        {'SecretString': '[redacted]'}
    """
    always = _ALWAYS.get((service, action), ())
    return {
        name: REDACTED if name in always else _clean(name, value)
        for name, value in parameters.items()
    }


def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def _clean(name: str, value: Any) -> Any:
    if _is_secret(name):
        return REDACTED
    if isinstance(value, dict):
        return {key: _clean(str(key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean("", item) for item in value]
    if isinstance(value, bytes):
        return f"[{len(value)} bytes]"
    if isinstance(value, str):
        return _clean_text(value)
    return value


def _clean_text(text: str) -> str:
    if text[:1] == "{":
        try:
            return json.dumps(_clean("", json.loads(text)), separators=(",", ":"))
        except ValueError:
            pass
    cleaned = _SECRET_TEXT.sub(REDACTED, text)
    if len(cleaned) > MAX_STRING:
        return f"{cleaned[:MAX_STRING]}... ({len(cleaned)} characters)"
    return cleaned
