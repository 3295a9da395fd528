# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates of one cluster, and kubeconfigs that carry them."""

import base64
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from ssl import create_default_context

import yaml

DAYS = "3650"


@dataclass(frozen=True)
class Authority:
    """A certificate authority and what it has signed, in one folder."""

    folder: Path

    def create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._key("ca")
        self._openssl("req", "-x509", "-new", "-key", self.key("ca"), "-subj", "/CN=kubeagents-test", "-days", DAYS,
                      "-out", self.certificate("ca"))  # fmt: skip
        self._key("service-accounts")
        self._openssl(
            "rsa", "-in", self.key("service-accounts"), "-pubout", "-out", self.folder / "service-accounts.pub"
        )

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def sign(self, name: str, subject: str, *alternatives: str) -> None:
        """A key and a certificate for a subject such as `/O=system:masters/CN=admin`."""
        self._key(name)
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        self._openssl("req", "-new", "-key", self.key(name), "-subj", subject, "-out", request)
        lines = ["extendedKeyUsage=clientAuth,serverAuth"]
        if alternatives:
            lines.append("subjectAltName=" + ",".join(alternatives))
        extensions.write_text("\n".join(lines))
        ca: list[str | Path] = ["-CA", self.certificate("ca"), "-CAkey", self.key("ca"), "-CAcreateserial"]
        signed: list[str | Path] = ["-days", DAYS, "-extfile", extensions, "-out", self.certificate(name)]
        self._openssl("x509", "-req", "-in", request, *ca, *signed)

    def kubeconfig(self, name: str, server: str) -> Path:
        """A kubeconfig with everything inside, for the holder of a certificate."""
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(
            yaml.safe_dump(
                kubeconfig(
                    server=server,
                    authority=self.certificate("ca").read_bytes(),
                    certificate=self.certificate(name).read_bytes(),
                    key=self.key(name).read_bytes(),
                )
            )
        )
        path.chmod(0o600)
        return path

    def answers(self, url: str) -> bool:
        """Whether the URL answers an administrator with 200."""
        context = create_default_context(cafile=str(self.certificate("ca")))
        context.load_cert_chain(self.certificate("admin"), self.key("admin"))
        try:
            with urllib.request.urlopen(url, timeout=2, context=context) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False

    def _key(self, name: str) -> None:
        self._openssl("genrsa", "-out", self.key(name), "2048")
        self.key(name).chmod(0o600)

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def kubeconfig(*, server: str, authority: bytes, certificate: bytes, key: bytes) -> dict[str, object]:
    """The content of a kubeconfig with one cluster, one user and one context."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "kubeagents-test",
        "clusters": [
            {"name": "kubeagents-test", "cluster": {"server": server, "certificate-authority-data": text(authority)}}
        ],
        "users": [
            {"name": "user", "user": {"client-certificate-data": text(certificate), "client-key-data": text(key)}}
        ],
        "contexts": [{"name": "kubeagents-test", "context": {"cluster": "kubeagents-test", "user": "user"}}],
    }
