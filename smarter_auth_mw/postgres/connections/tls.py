"""TLS as in libpq: by ``sslmode``, with certificates named in the URL or found in ``~/.postgresql``."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from smarter_auth_mw.errors import UnavailableError

Attempt = ssl.SSLContext | None
"""One attempt to connect: with a TLS context, or None for plain text."""

SYSTEM = "system"


def attempts(options: Mapping[str, str]) -> tuple[Attempt, ...]:
    """Return the attempts in order; raises UnavailableError if a file that the URL names cannot be used."""
    mode = options.get("sslmode", "prefer")
    if options.get("channel_binding") == "require" and mode not in ("verify-ca", "verify-full"):
        # asyncpg has no channel binding. A verified certificate detects a man in the middle as well.
        mode = "verify-full"
        options = {"sslrootcert": SYSTEM, **options}
    if mode == "disable":
        return (None,)
    context = _context(mode, options)
    return {"allow": (None, context), "prefer": (context, None)}.get(mode, (context,))


def _context(mode: str, options: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = _version(options.get("ssl_min_protocol_version", "TLSv1.2"))
    if newest := options.get("ssl_max_protocol_version"):
        context.maximum_version = _version(newest)
    context.set_alpn_protocols(["postgresql"])
    if mode in ("require", "verify-ca", "verify-full"):
        _trust(context, mode, options)
    _identify(context, options)
    return context


def _trust(context: ssl.SSLContext, mode: str, options: Mapping[str, str]) -> None:
    """Verify the server's certificate; only ``require`` does without if no CA is configured."""
    root = options.get("sslrootcert") or _own("root.crt")
    if root == SYSTEM:
        context.load_default_certs()
    elif root:
        _load(context, "sslrootcert", root)
    elif mode == "require":
        return
    else:
        raise UnavailableError(
            f"sslmode={mode} needs a CA certificate, and none is given.",
            hint="Add sslrootcert=FILE to the URL, or sslrootcert=system for the CAs that the system trusts.",
        )
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = mode == "verify-full"
    if revoked := options.get("sslcrl") or _own("root.crl"):
        _load(context, "sslcrl", revoked)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _identify(context: ssl.SSLContext, options: Mapping[str, str]) -> None:
    """Load the client's certificate, if there is one."""
    if options.get("sslcertmode") == "disable":
        return
    certificate = options.get("sslcert") or _own("postgresql.crt")
    key = options.get("sslkey") or _own("postgresql.key")
    if not certificate:
        return
    _check_readable("sslcert", certificate)
    if key:
        _check_readable("sslkey", key)
    try:
        context.load_cert_chain(certificate, key or None, password=lambda: options.get("sslpassword", ""))
    except (ssl.SSLError, ValueError):
        raise UnavailableError(
            f"sslcert={certificate} is not a certificate in PEM, or its key does not belong to it.",
            hint="Name the certificate in sslcert, its key in sslkey, and the key's password in sslpassword.",
        ) from None


def _load(context: ssl.SSLContext, option: str, file: str) -> None:
    _check_readable(option, file)
    try:
        context.load_verify_locations(cafile=file)
    except (ssl.SSLError, ValueError):
        raise UnavailableError(
            f"{option}={file} is not a file of certificates in PEM.", hint="Check the path."
        ) from None


def _check_readable(option: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise UnavailableError(
            f"{option}={file} cannot be read: {error.strerror}.", hint="Check the path, and that this user may read it."
        ) from None


def _own(name: str) -> str:
    """Return the file in the user's HOME, or None if it does not exist or HOME may not be read."""
    try:
        file = Path.home() / ".postgresql" / name
        with file.open("rb"):
            return str(file)
    except (OSError, RuntimeError):
        return ""


def _version(name: str) -> ssl.TLSVersion:
    return ssl.TLSVersion["TLSv1" if name == "TLSv1" else name.replace(".", "_")]
