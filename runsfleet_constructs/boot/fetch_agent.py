"""Download the agent with the instance's own credentials, check it and unpack it.

Runs once, at the start of an instance, with the standard library alone. Where things are comes by
environment: RUNSFLEET_AGENT_*, AWS_REGION, and for another cloud that speaks the same protocols
AWS_ENDPOINT_URL, AWS_EC2_METADATA_SERVICE_ENDPOINT and AWS_CA_BUNDLE.
"""

import hashlib
import hmac
import io
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile

ATTEMPTS = 6  # with the pauses between them about a minute: credentials may come late after a boot
EMPTY = hashlib.sha256(b"").hexdigest()


def metadata(path, token=None):
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
    url = f"{base.rstrip('/')}/latest/{path}"
    if token is None:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
        request = urllib.request.Request(url, headers=headers, method="PUT")
    else:
        request = urllib.request.Request(url, headers={"X-aws-ec2-metadata-token": token})
    # never by a proxy: the address means this machine
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5) as answer:
        return answer.read().decode()


def credentials():
    token = metadata("api/token")
    path = "meta-data/iam/security-credentials/"
    role = metadata(path, token).split()[0]
    return json.loads(metadata(path + role, token))


def address(env):
    bucket, key = env["RUNSFLEET_AGENT_BUCKET"], urllib.parse.quote(env["RUNSFLEET_AGENT_KEY"])
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    if endpoint:
        return f"{endpoint.rstrip('/')}/{bucket}/{key}"
    suffix = env["RUNSFLEET_AGENT_URL_SUFFIX"]
    return f"https://{bucket}.s3.{env['AWS_REGION']}.{suffix}/{key}"


def signed(url, region, keys, now):
    """Sign a GET for S3 (Signature Version 4)."""
    parts = urllib.parse.urlsplit(url)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    headers = {
        "host": parts.netloc,
        "x-amz-content-sha256": EMPTY,
        "x-amz-date": stamp,
        "x-amz-security-token": keys["Token"],
    }
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join(["GET", parts.path, "", lines, names, EMPTY])
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, digest])
    key = ("AWS4" + keys["SecretAccessKey"]).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys['AccessKeyId']}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    del headers["host"]  # urllib writes it itself
    return urllib.request.Request(url, headers=headers)


def download(url, region):
    bundle = os.environ.get("AWS_CA_BUNDLE") or None
    context = ssl.create_default_context(cafile=bundle) if url.startswith("https:") else None
    with urllib.request.urlopen(
        signed(url, region, credentials(), time.time()), timeout=60, context=context
    ) as answer:
        return answer.read()


def fetch(target, env):
    url = address(env)
    expected = env["RUNSFLEET_AGENT_SHA256"]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            body = download(url, env["AWS_REGION"])
            found = hashlib.sha256(body).hexdigest()
            if found != expected:
                raise ValueError(f"sha-256 is {found}, expected {expected}")
            break
        except (OSError, ValueError, IndexError, KeyError) as error:
            detail = error.read(500) if isinstance(error, urllib.error.HTTPError) else ""
            print(f"runsfleet: attempt {attempt} to get {url} failed: {error} {detail}", flush=True)
            if attempt == ATTEMPTS:
                sys.exit("runsfleet: no agent; see the attempts above")
            time.sleep(min(2**attempt, 20))
    with zipfile.ZipFile(io.BytesIO(body)) as package:
        package.extractall(target)
    print(f"runsfleet: agent {expected[:12]} is in {target}", flush=True)


if __name__ == "__main__":
    fetch(sys.argv[1], os.environ)
