"""ServerOptions: what can be said of a server's connections, beside their context."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypedDict

from .alpn import ALPNProtocols
from .certificates import Certificate
from .context import SecureContext
from .keylog import KeyLog
from .psk import PreSharedKey

if TYPE_CHECKING:
    from .choice import Choice
    from .stream import TLSStream
    from .trace import Trace

SNICallback = Callable[[str], "SecureContext | Awaitable[SecureContext | None] | None"]
"""``sni_callback``: given the name that the client sent; returns a context, or None for the table's."""

ALPNAnswer = str | bytes | bytearray | memoryview | None
ALPNCallback = Callable[["Choice"], "ALPNAnswer | Awaitable[ALPNAnswer]"]
"""``alpn_callback``: given a `Choice`; returns one of the protocols that the client offers, or None to refuse
it."""

OCSPCallback = Callable[[Certificate, Certificate | None], "bytes | Awaitable[bytes | None] | None"]
"""``ocsp_callback``: given the certificate that will be presented and its issuer's, if that is known; returns
an OCSP response in DER, or None."""

PSKAnswer = bytes | bytearray | memoryview | PreSharedKey | None
ServerPSKCallback = Callable[["TLSStream", str], "PSKAnswer | Awaitable[PSKAnswer]"]
"""A server's ``psk``: given the stream and the identity that the client names; returns its key, or None."""

ResumeCallback = Callable[["Choice"], "bool | Awaitable[bool]"]
"""``resume``: given what a client that wants to resume a session offers; returns whether it may."""

NewSessionCallback = Callable[[bytes, bytes], "Awaitable[object] | object"]
"""``on_new_session``: given the identifier of a session that was made, and the session."""


class ServerOptions(TypedDict, total=False):
    """The options of a server's connections, beside their context.

    Attributes:
        sni_callback: Called with the name that a client sent; returns a context, or None for the one added by
            `TLSServer.add_context`, else the default one.  Raising refuses the client.  May be async.
        alpn_protocols: The application protocols, most preferred first, or the wire format.  A client that
            offers others alone is refused.
        alpn_callback: In place of `alpn_protocols`: called with a `Choice` if the client offers protocols;
            returns one of them, or None to refuse the client.  May be async.
        request_cert: Ask clients for a certificate.
        reject_unauthorized: With `request_cert`: refuse a client that is not verified.  When off,
            `ConnectionInfo.authorization_error` tells why it should not be trusted.
        ocsp_callback: Called with the certificate that is going to be presented and its issuer's (from its
            chain or ``ca``, else None), if the client asks for a stapled OCSP response; returns one in DER,
            or None.  It may be called in vain: no certificate is presented where a session is resumed, or
            TLS 1.2 ends up with a pre-shared key.  May be async.
        resume: Called with a `Choice` if a client wants to resume a session; False lets it do a full
            handshake, which leaves no session that could be resumed.  May be async.
        on_new_session: Called with the identifier and the DER of each session that has one: all of TLS 1.3,
            and those of TLS 1.2 that the server keeps (``SSL_OP_NO_TICKET``).  Application data waits for it.
            May be async.
        ticket_rotation: After how many seconds the keys of session tickets are replaced; the old ones are
            honoured for as long again.  None keeps them.  They are in memory only, and belong on no disk: up
            to TLS 1.2, who finds them reads all that was recorded under them.
        psk: Called with the stream and the identity of a pre-shared key; returns the key, a `PreSharedKey`,
            or None if nobody has this identity.  May be async in TLS 1.3, where the identity is in the
            ClientHello; in TLS 1.2 it comes when OpenSSL cannot wait.  Identities of TLS 1.3 are tried in the
            client's order, and those that are no UTF-8, as tickets, are left out.
        psk_identity_hint: What clients of TLS 1.2 are told to help them to choose their key, at most 256
            bytes of UTF-8.
        handshake_timeout: From accepting a connection to its being secure, callbacks included, in seconds.
        close_timeout: How long saying goodbye may take at the end of a connection, in seconds.
        idle_timeout: For how long nothing may pass while a task waits to receive, in seconds; None is for
            ever.
        send_timeout: How long a client may take for what is sent at once, at most 256 KiB, in seconds; None
            is for ever.
        max_early_data: How many bytes a client that resumes a session of TLS 1.3 may send before the
            handshake is done, 0 to 16384; 0, the default, is none.  `TLSStream.early_data` has them.  OpenSSL
            then keeps the sessions in the process and lets each resume once, so that recorded data is refused
            when it is sent again; several processes do not know of one another.
        keylog: Where the secrets of the connections go: a function that is called with each line and the
            stream, the path of a file, or True for the file that ``SSLKEYLOGFILE`` names.
        trace: What is told of each message: a function that is called with each line and the stream, True for
            lines on the standard error, or `HandshakeTrace` for one at each `TLSStream.trace`.
        renegotiation_limit: How often a client of TLS 1.2 may renegotiate within `renegotiation_window`; by
            default what `trio_tlsnode.defaults` says.  Leave it alone, or lower it: a renegotiation costs the
            server much more than the client.
        renegotiation_window: A time in seconds.
        https_compatible: Take the end of the transport for the peer's goodbye (RFC 2818), as HTTP/1.1 peers
            and Node do; data may have been cut off.
    """

    sni_callback: SNICallback | None
    alpn_protocols: ALPNProtocols | None
    alpn_callback: ALPNCallback | None
    request_cert: bool
    reject_unauthorized: bool
    ocsp_callback: OCSPCallback | None
    resume: ResumeCallback | None
    on_new_session: NewSessionCallback | None
    ticket_rotation: float | None
    psk: ServerPSKCallback | None
    psk_identity_hint: str | None
    handshake_timeout: float
    close_timeout: float
    idle_timeout: float | None
    send_timeout: float | None
    max_early_data: int
    keylog: KeyLog
    trace: Trace
    renegotiation_limit: int | None
    renegotiation_window: float | None
    https_compatible: bool
