"""The certificate authority of the local cloud, made anew for each run in strict mode.

Lifecycle: `create_tls_files` writes a CA, a server certificate signed by it, and a bundle of the
system's roots plus the CA. Clients are told of the bundle by environment variables only, as one
would for a company's own CA. Nothing is added to a system trust store; the files go with the run.

Example:
    >>> files = create_tls_files(Path("/tmp/run/tls"), now=datetime.now(UTC))
    >>> env = os.environ | files.client_environment()
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# a run lasts minutes; a week covers a laptop that slept over a long weekend
_LIFETIME = timedelta(days=7)
# clocks of containers drift against their host
_CLOCK_SKEW = timedelta(minutes=5)
_DNS_NAMES = ("localhost", "*.localhost", "*.execute-api.localhost")
_ADDRESSES = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificates of one run are.

    Args:
        ca: The authority's certificate, PEM.
        certificate: The server's certificate, PEM.
        key: The server's private key, PEM, readable by its owner only.
        bundle: System roots plus `ca`: for variables that replace a trust store.
    """

    ca: Path
    certificate: Path
    key: Path
    bundle: Path

    def client_environment(self) -> dict[str, str]:
        """Variables that make SDKs, Python, curl and Node trust the local cloud."""
        bundle = str(self.bundle)
        return {
            "AWS_CA_BUNDLE": bundle,
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
            "CURL_CA_BUNDLE": bundle,
            "NODE_EXTRA_CA_CERTS": str(self.ca),
        }

    def server_context(self) -> ssl.SSLContext:
        """A context to serve with this certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context that trusts this run's authority and nothing else."""
        return ssl.create_default_context(cafile=str(self.ca))


def create_tls_files(directory: Path, *, now: datetime) -> TlsFiles:
    """Write a new authority and a server certificate for every local name.

    Args:
        directory: Made if missing; earlier files in it are replaced.
        now: Start of validity (five minutes of clock skew are granted).

    Returns:
        The paths written. Names: localhost, *.localhost, *.execute-api.localhost, 127.0.0.1, ::1.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "runsfleet local authority")])
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in _DNS_NAMES]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in _ADDRESSES]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        _builder(subject, ca_name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # python 3.13 and later refuse a chain without key identifiers (VERIFY_X509_STRICT)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    files = TlsFiles(
        ca=directory / "ca.pem",
        certificate=directory / "server.pem",
        key=directory / "server.key",
        bundle=directory / "ca-bundle.pem",
    )
    ca_pem = ca.public_bytes(serialization.Encoding.PEM)
    files.ca.write_bytes(ca_pem)
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.touch(mode=0o600)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    files.bundle.write_bytes(_system_roots() + b"\n" + ca_pem)
    return files


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _system_roots() -> bytes:
    paths = ssl.get_default_verify_paths()
    candidates = (paths.cafile, paths.openssl_cafile)
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return Path(candidate).read_bytes()
    return b""
