# SPDX-License-Identifier: Apache-2.0
"""An issuer of tokens: a real HTTPS server with discovery and keys that may be rotated, and the tokens themselves."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.certificates import Authority

AUDIENCE = "kubeagents"


class TokenIssuer:
    """Serves while it is entered. Signs whether it serves or not."""

    def __init__(self, authority: Authority, folder: Path, *, port: int = 0) -> None:
        certificate = authority.server().write(folder)
        assert certificate
        self._tls = SSLContext(PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        self._port = port
        self._server: ThreadingHTTPServer | None = None
        self._key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
        self._documents: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        """The paths that were asked for."""
        self.rotate("first")

    @property
    def url(self) -> str:
        """What its tokens have as `iss`."""
        return f"https://localhost:{self._port}/realm"

    def rotate(self, key_id: str, *, keep: bool = False, algorithm: str = "ES256") -> None:
        """Sign with a new key from now on, and publish it; with `keep` besides those of before."""
        if algorithm.startswith(("RS", "PS")):
            self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
        made = jwt.get_algorithm_by_name(algorithm)
        document = json.loads(made.to_jwk(self._key.public_key()))
        if not keep:
            self._documents.clear()
        self._documents[key_id] = {**document, "kid": key_id, "use": "sig", "alg": algorithm}
        self._key_id, self._algorithm = key_id, algorithm

    def token(self, user: str, *, seconds: float = 3600.0, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token. Claims that are None are left out."""
        now = time.time()
        said = {"iss": self.url, "aud": AUDIENCE, "sub": user, "iat": int(now), "exp": int(now + seconds), **claims}
        body = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(
            body, self._key, algorithm=self._algorithm, headers={"kid": self._key_id} if headers is None else headers
        )

    def jwks(self) -> dict[str, Any]:
        """What it publishes."""
        return {"keys": list(self._documents.values())}

    def __enter__(self) -> Self:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                answers = {
                    "/realm/.well-known/openid-configuration": {
                        "issuer": issuer.url,
                        "jwks_uri": f"https://localhost:{issuer._port}/keys",
                    },
                    "/keys": issuer.jwks(),
                }
                found = answers.get(self.path)
                self.send_response(200 if found is not None else 404)
                body = json.dumps(found or {}).encode()
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.socket = self._tls.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)
