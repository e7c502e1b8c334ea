"""A PostgreSQL that speaks TLS, with an authority of the tests' own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.plain_postgres import PlainPostgres, hand_over, installed

SUBJECT = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for this machine that nobody but its own file vouches for, and its key."""
    certificate, key = directory / "server.crt", directory / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate), *SUBJECT]
    subprocess.run(command, check=True, capture_output=True)
    for path in (certificate, key):
        hand_over(path)
    key.chmod(0o600)
    return certificate, key


@contextmanager
def tls_postgres() -> Iterator[tuple[PlainPostgres, Path]]:
    """The server, and the file of its authority."""
    able = [programs for programs in installed().values() if b"libssl" in (programs / "postgres").read_bytes()]
    if not able:
        pytest.skip("no PostgreSQL here was built with TLS")
    server = PlainPostgres(able[-1]).made()
    certificate, key = make_certificate(server.home)
    server.configure(ssl="on", ssl_cert_file=str(certificate), ssl_key_file=str(key))
    with server:
        yield server, certificate
