"""A TLS terminator on loopback, and certificates that are good or wrong in one way each."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "localhost"
"""The name under which the terminator is asked for."""


class Authority:
    """Whom the daemon is told to trust (`bundle`), and what it signs."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.bundle = str(home / "trusted.pem")
        self._certificate = self._make("an authority", self._key, None)
        Path(self.bundle).write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, *, host: str = HOST, expired: bool = False, signed: bool = True) -> ssl.SSLContext:
        """A server's side of TLS: its certificate is for `host`, over or not, signed here or by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._make(host, key, self._certificate if signed else None, expired=expired)
        file = self._home / f"{host}-{expired}-{signed}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _make(
        self, host: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None, *, expired: bool = False
    ) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        ends = datetime.now(UTC) + timedelta(days=-1 if expired else 2)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer.subject if issuer else name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(ends - timedelta(days=30))
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host.replace(" ", "-"))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .sign(self._key if issuer else key, hashes.SHA256())
        )


class Terminator:
    """Speaks TLS for a plain server at `url`: `with Terminator(server.url, context) as way: … way.url …`

    `context` may be changed between connections; None cuts each one in the middle of its handshake.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self.context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://{HOST}:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            if self.context is None:
                plain.recv(16)
                return
            with (
                self.context.wrap_socket(plain, server_side=True) as near,
                socket.create_connection(self._target) as far,
            ):
                _pass_on(near, far)


def _pass_on(near: ssl.SSLSocket, far: socket.socket) -> None:
    """Both ways in one thread, which OpenSSL wants, until either side ends."""
    while True:
        ready = [near] if near.pending() else select.select([near, far], [], [])[0]
        for source in ready:
            chunk = source.recv(65536)
            if not chunk:
                return
            (far if source is near else near).sendall(chunk)
