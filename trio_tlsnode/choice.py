"""Choice: what a client offers, for those who choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .context import SecureContext
from .errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    from .addresses import Address
    from .client_hello import ClientHello


class Choice:
    """What `alpn_callback` chooses from (Node's ``ALPNCallback``).

    Attributes:
        hello: What the client offers.
        remote_address: Where the client is, if the transport can tell.
    """

    __slots__ = ("_credentials", "hello", "remote_address")

    def __init__(self, hello: ClientHello, remote_address: Address | None) -> None:
        self.hello = hello
        self.remote_address = remote_address
        self._credentials: SecureContext | None = None

    @property
    def server_name(self) -> str | None:
        """The name that the client sent, or None."""
        return self.hello.server_name

    @property
    def protocols(self) -> tuple[str, ...]:
        """The application protocols that the client offers, its favourite first."""
        return self.hello.alpn_protocols

    def use_credentials(self, context: SecureContext) -> None:
        """Present another context's certificate, with its key and chain, on this connection alone.

        All else stays as the connection's own context has it (Node's ``tlsSocket.setKeyCert``).

        Args:
            context: Whose.

        Raises:
            ConfigurationTypeError: it is no context.
            ConfigurationError: it has no certificate.
        """
        if not isinstance(context, SecureContext):
            raise ConfigurationTypeError(
                f"use_credentials takes a SecureContext. Received {context!r}", option="context"
            )
        if not context.has_identity:
            raise ConfigurationError("this context has no certificate and key", option="context")
        self._credentials = context

    def applied_to(self, context: SecureContext) -> SecureContext:
        """Return a connection's context with the credentials that were chosen.

        Args:
            context: The connection's.
        """
        return context if self._credentials is None else context.with_credentials_of(self._credentials)

    def __repr__(self) -> str:
        return f"<Choice for {self.server_name!r} of {', '.join(self.protocols) or 'no protocol'}>"
