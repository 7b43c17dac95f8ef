"""What must not be shown is not shown, whatever stands around it."""

from __future__ import annotations

import base64
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.agent.masking import MASK, Masker, MaskingFormatter

KEY = "q83" + "Zk9" * 40


def jit_config() -> str:
    """Return what GitHub hands out: files by their names, base64 in base64."""
    rsa = base64.b64encode(json.dumps({"d": KEY, "modulus": "short"}).encode()).decode()
    files = {
        ".runner": base64.b64encode(b'{"agentName": "x"}').decode(),
        ".credentials_rsaparams": rsa,
    }
    return base64.b64encode(json.dumps(files).encode()).decode()


@pytest.mark.parametrize(
    "secret",
    [
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "ghs_1234567_eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiIxIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ",
        "ghs_16C7e42F292c6912E7710c838347Ae178B4a",
        "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlX3NpZ24",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----",
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "token={} ok", '{{"a": "{}"}}', "https://x:{}@github.com"]
)
def test_secrets_are_known_by_their_shape(secret: str, around: str) -> None:
    """Tokens and keys of GitHub and AWS are taken out wherever they stand."""
    masked = Masker()(around.format(secret))
    assert secret not in masked
    assert secret[10:30] not in masked
    assert MASK in masked


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "AWS_SECRET_ACCESS_KEY=***",
        ),
        (
            '"SecretAccessKey" : "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"',
            '"SecretAccessKey" : "***"',
        ),
        ("aws_session_token: IQoJb3JpZ2luX2VjEJr==", "aws_session_token: ***"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***"),
        ("./config.sh --token AABBCCDDEE", "./config.sh --token ***"),
    ],
)
def test_secrets_are_known_by_their_name(line: str, expected: str) -> None:
    """What follows the name of a secret is taken out, the name stays."""
    assert Masker()(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-20 11:00:00Z: Listening for Jobs",
        "Job build completed with result: Succeeded",
        "i-0123456789abcdef0 runs-fleet=12/runner=4cpu-linux-x64",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_plain_lines_stay(line: str) -> None:
    """What is no secret is left as it is."""
    assert Masker()(line) == line


@given(st.text(min_size=7), st.text(), st.text())
def test_a_learned_secret_never_shows(secret: str, before: str, after: str) -> None:
    """Whatever a secret consists of and stands in, it does not come through."""
    mask = Masker()
    mask.learn(secret)
    if secret not in MASK * 3:
        assert secret not in mask(before + secret + after).replace(MASK, "")


def test_the_longer_secret_goes_first() -> None:
    """A secret that is part of another leaves nothing of the other behind."""
    mask = Masker()
    mask.learn("abcdefgh", "abcdefghijkl")
    assert mask("x abcdefghijkl y abcdefgh") == "x *** y ***"


def test_what_a_jit_configuration_holds_is_secret_too() -> None:
    """The files inside it and the numbers of its private key are learned with it."""
    mask = Masker()
    config = jit_config()
    mask.learn(config)
    inner = json.loads(base64.b64decode(config))[".credentials_rsaparams"]
    assert mask(f"{config} / {inner} / {KEY}") == "*** / *** / ***"


def test_short_texts_are_not_learned() -> None:
    """A secret of a few letters would blot out ordinary words."""
    mask = Masker()
    mask.learn("", "job")
    assert mask("the job ran") == "the job ran"


def test_a_formatter_masks_all_of_a_line() -> None:
    """Also what is in the fields or the traceback of a log line."""
    mask = Masker()
    mask.learn("hunter2hunter2")
    formatter = MaskingFormatter(None, mask)
    record = logging.makeLogRecord({"msg": "it is %s", "args": ("hunter2hunter2",)})
    assert formatter.format(record) == "it is ***"
