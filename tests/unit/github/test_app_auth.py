"""App tokens: what they claim, and what an unusable secret gets."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runsfleet_runtime.github.app_auth import AppCredentials
from runsfleet_runtime.github.errors import CredentialsError
from runsfleet_runtime.secrets.reader import SecretUnavailableError

REFERENCE = "secretsmanager:app"


def claims_of(token: str, key: Any) -> dict[str, Any]:
    """Verify a token and return what it claims."""
    return dict(
        jwt.decode(
            token, key, algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False}
        )
    )


def test_token_is_backdated_and_lives_nine_minutes(
    secrets: Any, clock: Any, private_key: Any
) -> None:
    """A token is issued 60 s in the past, expires within 9 minutes and names the App as text."""
    token = AppCredentials(secrets, REFERENCE, clock=clock).token()
    claims = claims_of(token, private_key.public_key())
    assert claims["iat"] == clock.now - 60
    assert claims["exp"] == clock.now + 540
    assert claims["iss"] == "4711"
    assert jwt.get_unverified_header(token)["alg"] == "RS256"


def test_two_tokens_of_the_same_second_differ(secrets: Any, clock: Any, private_key: Any) -> None:
    """Functions that sign in the same second send different tokens."""
    credentials = [AppCredentials(secrets, REFERENCE, clock=clock) for _ in range(2)]
    tokens = [each.token() for each in credentials for _ in range(5)]
    assert len(set(tokens)) == 10
    assert len({claims_of(t, private_key.public_key())["jti"] for t in tokens}) == 10


def test_client_id_is_preferred_as_issuer(secrets: Any, clock: Any, private_key: Any) -> None:
    """A secret with a client id signs with it, as GitHub advises."""
    secrets.value = json.dumps(json.loads(secrets.value) | {"client_id": "Iv23liExample"})
    token = AppCredentials(secrets, REFERENCE, clock=clock).token()
    assert claims_of(token, private_key.public_key())["iss"] == "Iv23liExample"


def test_key_with_literal_line_breaks_is_understood(
    secrets: Any, clock: Any, private_key: Any
) -> None:
    """A private key whose line breaks were pasted as backslash and n still signs."""
    body = json.loads(secrets.value)
    body["private_key"] = body["private_key"].replace("\n", "\\n")
    secrets.value = json.dumps(body)
    token = AppCredentials(secrets, REFERENCE, clock=clock).token()
    assert claims_of(token, private_key.public_key())["iss"] == "4711"


@pytest.mark.parametrize(
    ("secret", "complaint"),
    [
        ("-----BEGIN RSA PRIVATE KEY-----", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"private_key": "topsecret"}', "lacks app_id"),
        ('{"app_id": true, "private_key": "topsecret"}', "lacks app_id"),
        ('{"app_id": 1}', "lacks private_key"),
        ('{"app_id": 1, "private_key": "topsecret"}', "not an unencrypted RSA key"),
    ],
)
def test_malformed_secret_names_the_cure_and_not_the_value(
    secrets: Any, clock: Any, secret: str, complaint: str
) -> None:
    """An unusable secret is refused by saying what is wrong, without repeating what it holds."""
    secrets.value = secret
    with pytest.raises(CredentialsError, match=complaint) as caught:
        AppCredentials(secrets, REFERENCE, clock=clock).token()
    assert REFERENCE in str(caught.value)
    assert "topsecret" not in str(caught.value)


def test_key_of_another_kind_is_refused(secrets: Any, clock: Any) -> None:
    """A key that is not RSA is refused, as GitHub accepts RS256 only."""
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    secrets.value = json.dumps({"app_id": 1, "private_key": text})
    with pytest.raises(CredentialsError, match="RSA"):
        AppCredentials(secrets, REFERENCE, clock=clock).token()


def test_unreadable_secret_is_a_credentials_error(clock: Any) -> None:
    """A secret that cannot be read is reported as the App's trouble, not as the job's."""

    class Broken:
        def read(self, reference: str) -> str:
            raise SecretUnavailableError(f"reading {reference} failed: AccessDeniedException")

        refresh = read

    with pytest.raises(CredentialsError, match="AccessDenied"):
        AppCredentials(Broken(), REFERENCE, clock=clock).token()


def test_secret_shows_nowhere(secrets: Any, clock: Any) -> None:
    """Neither the credentials nor what they keep show the key in their representation."""
    credentials = AppCredentials(secrets, REFERENCE, clock=clock)
    credentials.token()
    assert "PRIVATE" not in f"{credentials!r} {credentials._app!r}"


def test_cryptography_is_imported_with_the_first_token_only() -> None:
    """A function that never signs does not pay for importing PyJWT and cryptography."""
    code = (
        "import sys, runsfleet_runtime.github.gateway\n"
        "assert not {'jwt', 'cryptography', 'boto3', 'botocore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
