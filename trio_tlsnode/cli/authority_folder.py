"""AuthorityFolder: where a throw-away authority and the certificate that it issued for this host are kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from .. import CertificateError, ConfigurationError, SecureContext
from ..testing import Authority, tls_pair

# How this host is called by itself.
NAMES: Final = ("localhost", "127.0.0.1", "::1")


@dataclasses.dataclass(frozen=True)
class AuthorityFolder:
    """A folder with ``ca.pem``, ``cert.pem`` and ``key.pem``.

    The authority's own key is not in it, so nobody can have it issue anything else.

    Attributes:
        path: Where the folder is.
    """

    path: Path

    @property
    def ca(self) -> Path:
        """The authority's certificate: what clients are to trust."""
        return self.path / "ca.pem"

    @property
    def cert(self) -> Path:
        """The certificate for this host."""
        return self.path / "cert.pem"

    @property
    def key(self) -> Path:
        """The certificate's private key, which only its owner may read."""
        return self.path / "key.pem"

    def context(self) -> SecureContext:
        """Return a context that presents the certificate and trusts the authority.

        Raises:
            ConfigurationError: a file cannot be used.
        """
        return SecureContext(key=self.key, cert=self.cert, ca=self.ca)

    async def make(self) -> bool:
        """Make the files unless they are there; return whether they were made.

        Raises:
            ConfigurationError: what is there cannot be used, or the folder cannot be written to.  Nothing is
                ever replaced.
        """
        try:
            present = [path.name for path in (self.ca, self.cert, self.key) if path.exists()]
            if not present:
                authority = Authority()
                authority.good(*NAMES).write_to(self.path)
                self.ca.write_bytes(authority.ca)
                return True
        except OSError as error:
            raise self._unusable(f"cannot be used: {error.strerror}") from error
        if len(present) < 3:
            raise self._unusable(f"has {' and '.join(present)}, but not the rest")
        try:
            await self._check()
        except (ConfigurationError, CertificateError) as error:
            raise self._unusable(f"has a certificate that cannot be used: {error.reason}") from error
        return False

    async def _check(self) -> None:
        """Try whether a client that trusts the authority accepts the certificate."""
        server_context, client_context = self.context(), SecureContext(ca=self.ca)
        for name in NAMES:
            client, server = await tls_pair(
                server_context=server_context,
                client_context=client_context,
                client_options={"host": name, "reject_unauthorized": False},
            )
            async with client, server:
                if client.authorization_error is not None:
                    raise client.authorization_error

    def _unusable(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"the folder {self.path} {why}. Name another folder, or empty this one",
            option="authority",
            path=str(self.path),
        )
