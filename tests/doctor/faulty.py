"""Deployments with one fault each: nginx as somebody may have written it, and a wire that takes something away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.edges.edge import NGINX
from tests.support import Process, free_ports

_RIGHT = {
    "proxy_http_version": "1.1",
    "proxy_set_header Upgrade": "$http_upgrade",
    "proxy_set_header Connection": "upgrade",
    "proxy_set_header Host": "$http_host",
    "proxy_read_timeout": "90s",
}

# Of each fault: what its location has in place of what is right, or beside it.
FAULTS: Mapping[str, Mapping[str, str | None]] = {
    "nothing": {},
    "no upgrade": {"proxy_set_header Upgrade": None, "proxy_set_header Connection": None},
    "redirect": {"return": "301 https://$host$request_uri"},
    "another host": {"proxy_set_header Host": "localhost"},
    "no origin": {"proxy_set_header Origin": '""'},
    "compression": {"add_header": "Sec-WebSocket-Extensions permessage-deflate always"},
    "no subprotocol": {"proxy_hide_header": "Sec-WebSocket-Protocol"},
    "pages for refusals": {"proxy_intercept_errors": "on", "error_page": "400 403 426 =404 /sorry.html"},
    "impatient": {"proxy_read_timeout": "1s"},
}
SHORT_LINES = "short lines"
BAD_TLS = "bad TLS"


@contextlib.contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[tuple[Process, Mapping[str, int]]]:
    """Its process, and where each of the faults is, in front of that port."""
    names = [*FAULTS, SHORT_LINES, BAD_TLS]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    certificate(folder, days=-1)
    servers = [_server(ports[name], _location(faults, upstream)) for name, faults in FAULTS.items()]
    right = _location({}, upstream)
    short = "client_header_buffer_size 1k; large_client_header_buffers 4 1k;"
    old = (
        f"ssl_certificate {folder}/fullchain.pem; ssl_certificate_key {folder}/privkey.pem; "
        "ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3; ssl_ciphers ALL:@SECLEVEL=0;"
    )
    servers += [_server(ports[SHORT_LINES], short + right), _server(ports[BAD_TLS], old + right, "ssl")]
    temporary = "".join(
        f"{what}_temp_path {folder}/{what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr crit;\n"
        f"events {{ worker_connections 512; }}\nhttp {{ access_log off; {temporary}\n" + "\n".join(servers) + "\n}\n"
    )
    (folder / "nginx").mkdir()
    process = Process(NGINX, "-e", "stderr", "-c", file, folder=folder / "nginx")
    try:
        yield process, ports
    finally:
        process.kill()


def _server(port: int, content: str, how: str = "") -> str:
    return f"server {{ listen 127.0.0.1:{port} {how}; {content} }}"


def _location(faults: Mapping[str, str | None], upstream: int) -> str:
    lines = {**_RIGHT, **faults, "proxy_pass": f"http://127.0.0.1:{upstream}"}
    directives = " ".join(f"{name} {value};" for name, value in lines.items() if value is not None)
    return f'location / {{ {directives} }} location = /sorry.html {{ return 404 "<h1>Sorry</h1>"; }}'


def certificate(folder: Path, *, days: float) -> None:
    """A self-signed one for 127.0.0.1 that ends in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=90))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def without_pongs(data: bytes) -> bytes:
    """What a node says, less its control pongs; each comes in a write of its own."""
    return b"" if data[:1] == b"\x8a" else data


def without_pings(data: bytes) -> bytes:
    return b"" if data[:1] == b"\x89" else data


def pongs(data: bytes) -> bytes:
    """What answers a ping in the client's name, masked with zeros; each ping comes in a write of its own."""
    return b"\x8a" + bytes([0x80 | data[1]]) + bytes(4) + data[2:] if data[:1] == b"\x89" else b""
