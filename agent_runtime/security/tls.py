# SPDX-License-Identifier: Apache-2.0
"""TLS of the ports, from files that may change at any time.

A Secret that is mounted is replaced by the kubelet: it turns a symbolic link, so the files are read again every few
seconds and compared. Connections that are made later see what is new. What does not work, such as a key that does not
belong to its certificate, is not taken: the old files go on, the log and a metric say so.

The context that servers hold never changes. When a handshake begins it puts the newest one in its own place, so
authorities of clients that are taken away are gone, which `load_verify_locations` alone could not do.
"""

import asyncio
import logging
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from prometheus_client import CollectorRegistry, Counter, Gauge

from kubeagents_api.errors import RuntimeConfigError
from kubeagents_api.runtime_config import TlsConfig

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
"""Between two looks whether the files have changed."""


@dataclass(frozen=True, slots=True)
class Material:
    """What is in the files, in PEM."""

    certificate: bytes
    private_key: bytes = field(repr=False)
    client_ca: bytes | None


class Tls:
    """The newest files that work. `material` and `context` may be read in any thread."""

    def __init__(self, config: TlsConfig, *, registry: CollectorRegistry) -> None:
        """Raises RuntimeConfigError if the files do not work."""
        self._config = config
        self._reloads = Counter(
            "kubeagents_tls_reloads_total", "Changes of the TLS files that were seen.", ["outcome"], registry=registry
        )
        self._not_after = Gauge(
            "kubeagents_tls_certificate_expires_timestamp_seconds",
            "When the certificate of the ports ends, in seconds since 1970.",
            registry=registry,
        )
        self._refused: str | None = None
        """What is wrong with files that were not taken."""
        try:
            self.material: Material = self._read()
            self._newest = self._context(self.material)
        except (OSError, ValueError) as error:
            raise RuntimeConfigError(f"the TLS files do not work: {error}; correct the Secrets of spec.tls") from error
        self.context = self._newest
        """For servers. Each handshake uses the newest files."""
        self.context.sni_callback = self._take_newest

    @property
    def client_certificate_required(self) -> bool:
        """Whether clients must show a certificate."""
        return self._config.client_auth == "Required"

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Take what has changed, if it works."""
        try:
            found = self._read()
            if found == self.material:
                self._refused = None
                return
            self._newest = self._context(found)
        except (OSError, ValueError) as error:
            self._refuse(error)
            return
        self.material, self._refused = found, None
        self._reloads.labels("taken").inc()
        _log.info("new TLS files are in use")

    def _refuse(self, error: Exception) -> None:
        if (what := str(error)) == self._refused:
            return
        self._refused = what
        self._reloads.labels("refused").inc()
        _log.error("the new TLS files do not work, the old ones stay in use: %s", what)

    def _read(self) -> Material:
        config = self._config
        return Material(
            Path(config.certificate).read_bytes(),
            Path(config.private_key).read_bytes(),
            Path(config.client_ca).read_bytes() if config.client_ca is not None else None,
        )

    def _context(self, material: Material) -> ssl.SSLContext:
        """Raises ValueError (ssl.SSLError is an OSError)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        with tempfile.TemporaryDirectory() as folder:  # what was read is what is loaded, whatever the kubelet does now
            certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
            certificate.write_bytes(material.certificate)
            key.touch(mode=0o600)
            key.write_bytes(material.private_key)
            context.load_cert_chain(certificate, key, password=_no_password)
        if material.client_ca is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=material.client_ca.decode("ascii"))
            # A session that is taken up again would not be held against the authorities of today.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        leaf = x509.load_pem_x509_certificate(material.certificate)
        self._not_after.set(leaf.not_valid_after_utc.timestamp())
        return context

    def _take_newest(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        connection.context = self._newest


def _no_password() -> str:
    raise ValueError("the private key is encrypted: put it into the Secret without a password")
