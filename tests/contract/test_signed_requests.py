"""The signed path on connections as the SDK is set up for them: certificates and proxies."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lookalike.adapters.aws import forget_clients
from lookalike.adapters.signed import SignedRequests


class Here(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def certificate(tmp_path) -> Path:
    """Of a server that only vouches for itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path: Path = tmp_path / "here.pem"
    path.write_bytes(made.public_bytes(pem) + private)
    return path


@pytest.fixture
def server(certificate, monkeypatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Here)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    for name in ("AWS_PROFILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL": f"https://127.0.0.1:{server.server_port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    forget_clients()
    yield f"https://127.0.0.1:{server.server_port}"
    forget_clients()
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_certificates_are_those_that_the_sdk_trusts(server, certificate, monkeypatch):
    assert SignedRequests("s3").send("HEAD", "/bucket/key") is None, "nobody vouches for it"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    forget_clients()
    answer = SignedRequests("s3").send("HEAD", "/bucket/key")
    assert answer is not None and answer.status == 200


def test_an_endpoint_behind_a_proxy_is_left_to_the_sdk(server, certificate, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # for another scheme
    forget_clients()
    assert SignedRequests("s3").send("HEAD", "/bucket/key") is not None
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert SignedRequests("s3").send("HEAD", "/bucket/key") is not None, "it is in NO_PROXY"
    monkeypatch.setenv("NO_PROXY", "example.com")
    assert SignedRequests("s3").send("HEAD", "/bucket/key") is None
