"""Download the agent with the instance's own credentials, check it and unpack it.

Runs once, at the start of an instance, with the standard library alone. Where things are comes by
environment: RUNSFLEET_AGENT_*, AWS_REGION, and for another cloud that speaks the same protocols
AWS_ENDPOINT_URL, AWS_EC2_METADATA_SERVICE_ENDPOINT and AWS_CA_BUNDLE.
"""

# ruff: noqa: PTH110, PTH118, PTH123, S310, T201
# the addresses are the cloud's own; what is printed goes to the instance's console; and user data
# is short: no pathlib

import hashlib
import hmac
import io
import json
import os
import ssl
import sys
import time
import zipfile
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener, urlopen

ATTEMPTS = 6  # with the pauses between them about a minute: credentials may come late after a boot
MARKER = ".sha256"  # written last, so that a folder that has it is whole
EMPTY = hashlib.sha256(b"").hexdigest()


def metadata(path: str, token: str = "") -> str:
    """Ask the instance metadata service, version 2; without a token, for a token."""
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
    url = f"{base.rstrip('/')}/latest/{path}"
    if token:
        request = Request(url, headers={"X-aws-ec2-metadata-token": token})
    else:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
        request = Request(url, headers=headers, method="PUT")
    # never by a proxy: the address means this machine
    with build_opener(ProxyHandler({})).open(request, timeout=5) as answer:
        return str(answer.read().decode())


def credentials() -> dict[str, Any]:
    """Return the keys of the instance's role."""
    token = metadata("api/token")
    path = "meta-data/iam/security-credentials/"
    role = metadata(path, token).split()[0]
    return dict(json.loads(metadata(path + role, token)))


def address(env: Mapping[str, str]) -> str:
    """Return where the agent is; path-style when another endpoint than AWS's is named."""
    bucket, key = env["RUNSFLEET_AGENT_BUCKET"], quote(env["RUNSFLEET_AGENT_KEY"])
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    if endpoint:
        return f"{endpoint.rstrip('/')}/{bucket}/{key}"
    suffix = env["RUNSFLEET_AGENT_URL_SUFFIX"]
    return f"https://{bucket}.s3.{env['AWS_REGION']}.{suffix}/{key}"


def signed(url: str, region: str, keys: Mapping[str, str], now: float) -> Request:
    """Sign a GET for S3 (Signature Version 4)."""
    parts = urlsplit(url)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    headers = {
        "host": parts.netloc,
        "x-amz-content-sha256": EMPTY,
        "x-amz-date": stamp,
        "x-amz-security-token": keys["Token"],
    }
    names = ";".join(headers)  # in alphabetical order above
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"GET\n{parts.path}\n\n{lines}\n{names}\n{EMPTY}"
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{keys['SecretAccessKey']}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys['AccessKeyId']}/{scope}, "
        f"SignedHeaders={names}, Signature={key.hex()}"
    )
    del headers["host"]  # urllib writes it itself
    return Request(url, headers=headers)


def download(url: str, env: Mapping[str, str]) -> bytes:
    """Return the package if it is the one that the launch template names."""
    trust = env.get("AWS_CA_BUNDLE") or None
    context = ssl.create_default_context(cafile=trust) if url.startswith("https:") else None
    request = signed(url, env["AWS_REGION"], credentials(), time.time())
    with urlopen(request, timeout=60, context=context) as answer:
        body = bytes(answer.read())
    found, expected = hashlib.sha256(body).hexdigest(), env["RUNSFLEET_AGENT_SHA256"]
    if found != expected:
        raise ValueError(f"its sha-256 is {found}, expected {expected}")
    return body


def fetch(target: str, env: Mapping[str, str]) -> None:
    """Unpack the agent into a folder, or end the script.

    An image, or an earlier boot, may have it there already: then the file MARKER in the folder
    holds its SHA-256, and nothing is downloaded.
    """
    url = address(env)
    marker = os.path.join(target, MARKER)
    if os.path.exists(marker):
        with open(marker, encoding="ascii") as file:
            if file.read().strip() == env["RUNSFLEET_AGENT_SHA256"]:
                print(f"runsfleet: the agent is in {target} already", flush=True)
                return
    for attempt in range(1, ATTEMPTS + 1):
        try:
            body = download(url, env)
        except (OSError, ValueError, IndexError, KeyError) as error:
            detail = error.read(500) if isinstance(error, HTTPError) else b""
            text = f"{error!r} {detail.decode(errors='replace')}".strip()
            print(f"runsfleet: attempt {attempt} to get {url}: {text}", flush=True)
        else:
            with zipfile.ZipFile(io.BytesIO(body)) as package:
                package.extractall(target)
            with open(marker, "w", encoding="ascii") as file:
                file.write(env["RUNSFLEET_AGENT_SHA256"])
            print(f"runsfleet: the agent is in {target}", flush=True)
            return
        if attempt < ATTEMPTS:
            time.sleep(min(2**attempt, 20))
    sys.exit("runsfleet: no agent; the attempts above tell why")


if __name__ == "__main__":
    fetch(sys.argv[1], os.environ)
