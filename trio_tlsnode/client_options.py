"""ClientStreamOptions: what can be said of a client's stream, beside its context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import trio

from .alpn import ALPNProtocols
from .context import SecureContext
from .engine import Engine
from .handshake import ClientPSKCallback, OCSPResponseCallback
from .keylog import KeyLog
from .ocsp import OCSPMode
from .option_values import check_flag
from .outcome import IdentityCheck
from .resumption import SessionCallback
from .timeouts import DEFAULT_CLOSE_TIMEOUT, DEFAULT_HANDSHAKE_TIMEOUT, Timeouts

if TYPE_CHECKING:
    from .trace import Trace


class ClientStreamOptions(TypedDict, total=False):
    """The options of a client's stream, beside its context.

    Attributes:
        server_name: The name to send as SNI and to verify; ``""`` sends none.  Default: `host`, if it is a
            name.
        check_server_identity: Called with the name and the certificate once its chain is trusted; raises, or
            returns an exception, to refuse.  It may not be async.  The standard check takes no URI for a
            name; who trusts a SPIFFE ID needs a check of his own.
        min_dh_size: The smallest finite-field Diffie-Hellman group of TLS 1.2 to accept, in bits; 1024 by
            default, as in Node, and 2048 is wise.
        confirm: Let the handshake wait until the server has accepted our certificate, which in TLS 1.3 it
            says only afterwards, by a session ticket or its first data.  A server that does neither before it
            has heard from us makes this wait for the time-out.
        reject_unauthorized: Refuse a server that is not verified.  When off, `TLSStream.authorization_error`
            tells why it should not be trusted.
        alpn_protocols: The application protocols, most preferred first, or the wire format.
        request_ocsp: Ask for a stapled OCSP response, which `ConnectionInfo.ocsp_response` has then.
        on_ocsp_response: Called with the response, or None, before the handshake is done; raises to refuse.
            It may not be async.  Where no certificate is presented it is not called: with a pre-shared key,
            and with a session, which is then one that was made with such a callback.
        ocsp: Ask for a response and judge it: "verify" accepts that there is none, unless the certificate
            says that there must be ("must staple", RFC 7633); "require" does not.
        session: A session to resume, from `TLSStream.session`, `TLSStream.sessions` or `on_session` of an
            earlier connection, in any process.  Where it cannot be used, or was made for another name or
            under another trust, the handshake is a full one; only `ConnectionInfo.session_reused` tells.
        on_session: Called with each session that can be resumed later, at the end of the handshake in TLS 1.2
            and when a ticket is read in TLS 1.3.  It may not be async; what it raises fails the connection.
        psk: Called with the server's hint, or None as always in TLS 1.3; returns a `PreSharedKey`.  None does
            without, which in TLS 1.2 ends a handshake whose suite needs one.  It may not be async.
        handshake_timeout: How long the handshake may take, in seconds.
        close_timeout: How long `TLSStream.aclose` may take to say goodbye, in seconds.
        idle_timeout: For how long nothing may pass while a task waits to receive, in seconds; None is for
            ever.
        send_timeout: How long the server may take for what is sent at once, at most 256 KiB, in seconds; None
            is for ever.
        early_data: What is sent together with the ClientHello, where a session is offered that allows it; not
            sent otherwise.  `ConnectionInfo.early_data_accepted` tells what became of it.  **Whoever records
            it can send it again**, to this server or another one that has its keys, so it must be harmless
            when it is done twice; and it has no forward secrecy (RFC 8446, section 8).
        post_handshake_auth: Let a server of TLS 1.3 ask for our certificate after the handshake.
        keylog: Where the secrets go: a function that is called with each line and the stream, the path of a
            file, or True for the file that ``SSLKEYLOGFILE`` names.
        trace: What is told of each message: a `HandshakeTrace`, the class for a new one at
            `TLSStream.trace`, a function that is called with each line and the stream, or True for lines on
            the standard error.
        renegotiation_limit: How often a server of TLS 1.2 may renegotiate within `renegotiation_window`; by
            default what `trio_tlsnode.defaults` says.
        renegotiation_window: A time in seconds.
        https_compatible: Take the end of the transport for the peer's goodbye (RFC 2818), as HTTP/1.1 peers
            and Node do; data may have been cut off.
    """

    server_name: str | None
    check_server_identity: IdentityCheck
    min_dh_size: int
    confirm: bool
    reject_unauthorized: bool
    alpn_protocols: ALPNProtocols | None
    request_ocsp: bool
    on_ocsp_response: OCSPResponseCallback | None
    ocsp: OCSPMode | None
    session: bytes | bytearray | memoryview | None
    on_session: SessionCallback | None
    psk: ClientPSKCallback | None
    handshake_timeout: float
    close_timeout: float
    idle_timeout: float | None
    send_timeout: float | None
    early_data: bytes | bytearray | memoryview | None
    post_handshake_auth: bool
    keylog: KeyLog
    trace: Trace
    renegotiation_limit: int | None
    renegotiation_window: float | None
    https_compatible: bool


def client_parts(
    context: SecureContext, host: str | None, options: Mapping[str, Any]
) -> tuple[Engine, Timeouts, bool]:
    """Return what a client's stream is made of: engine, time-outs, and whether it waits to be confirmed.

    Args:
        context: What the connection is made from.
        host: The name or IP address that was connected to.
        options: Those of `ClientStreamOptions`.

    Raises:
        ConfigurationError: one cannot be used.
    """
    rest = dict(options)
    timeouts = Timeouts(
        rest.pop("handshake_timeout", DEFAULT_HANDSHAKE_TIMEOUT),
        rest.pop("close_timeout", DEFAULT_CLOSE_TIMEOUT),
        rest.pop("idle_timeout", None),
        rest.pop("send_timeout", None),
    )
    confirm = check_flag("confirm", rest.pop("confirm", False))
    return Engine(context, host=host, clock=trio.current_time, **rest), timeouts, confirm
