"""OpenSSL's callbacks: each made once, finding its connection, and asking it.

One callback for each connection would be a cycle through C, which only the garbage collector could free; and
one that is freed is not a crash but a call of somebody else's.  What a connection raises when it is asked is
kept there, and raised by the verb during which OpenSSL called: nothing may pass through C.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from ..alerts import Alert
from .library import NULL, ffi, lib

if TYPE_CHECKING:
    from ..psk import PreSharedKey
    from .connection import Connection

connections: weakref.WeakValueDictionary[Any, Connection] = weakref.WeakValueDictionary()
"""Connections by their ``SSL *``."""

_STORE_CTX_SSL = lib.SSL_get_ex_data_X509_STORE_CTX_idx()
_CLIENT_STEP = lib.SSL_CB_CONNECT_LOOP
_READ_TICKET = b"SSLv3/TLS read server session ticket"
_SERVER_STEP = lib.SSL_CB_ACCEPT_LOOP
_READ_FINISHED = b"SSLv3/TLS read finished"
_HANDSHAKE_START = lib.SSL_CB_HANDSHAKE_START
_HANDSHAKE_DONE = lib.SSL_CB_HANDSHAKE_DONE
_TLS13 = 0x0304
# SSL_TLSEXT_ERR_...: cffi's default after an exception, 0, would mean agreement.
_OK = 0
_ALERT_FATAL = 2
_NOACK = 3
# More than OpenSSL's PSK_MAX_PSK_LEN: no key, but an internal error.
_NO_KEY_BUT_AN_ERROR = 513


@ffi.callback("int(int, X509_STORE_CTX *)", error=0)  # type: ignore[untyped-decorator]
def on_verify(ok: int, store_ctx: Any) -> int:
    """``SSL_CTX_set_verify``'s callback."""
    ssl = ffi.cast("SSL *", lib.X509_STORE_CTX_get_ex_data(store_ctx, _STORE_CTX_SSL))
    connection = connections[ssl]
    verification = connection.verification
    try:
        return int(verification is not None and verification.on_verify(ok, store_ctx))
    except BaseException as error:  # noqa: BLE001 - cffi would print it, and forget it
        connection.keep(error)
        return 0


@ffi.callback(  # type: ignore[untyped-decorator]
    "int(SSL *, unsigned char **, unsigned char *, unsigned char *, unsigned int, void *)", error=_ALERT_FATAL
)
def on_alpn_select(ssl: Any, out: Any, outlen: Any, offered: Any, offered_length: int, _arg: Any) -> int:
    """``SSL_CTX_set_alpn_select_cb``'s callback: answers with what was decided from the ClientHello."""
    chosen = connections[ssl].alpn_choice
    if chosen is None:
        return _NOACK
    protocols = bytes(ffi.buffer(offered, offered_length))
    position = 0
    while position < len(protocols):
        length = protocols[position]
        if protocols[position + 1 : position + 1 + length] == chosen:
            out[0] = offered + position + 1
            outlen[0] = length
            return _OK
        position += 1 + length
    # The second hello after a HelloRetryRequest offers something else than the first one did.
    return _ALERT_FATAL


@ffi.callback("int(SSL *, int *, void *)", error=_ALERT_FATAL)  # type: ignore[untyped-decorator]
def on_server_name(ssl: Any, alert: Any, _arg: Any) -> int:
    """``SSL_CTX_set_tlsext_servername_callback``'s callback: asks whether this is the name to go on with.

    It is called for each ClientHello, also where it names nobody.
    """
    connection = connections[ssl]
    if lib.SSL_version(ssl) != _TLS13 and not lib.SSL_renegotiate_pending(ssl):
        # There is only one hello so far, and of a resumed session this would be another one's name.
        return _OK
    name = lib.SSL_get_servername(ssl, lib.TLSEXT_NAMETYPE_host_name)
    host = None if name == NULL else ffi.string(name).decode("latin-1")
    connection.refusal = connection.refuse_server_name(host)
    if connection.refusal is None:
        return _OK
    alert[0] = Alert.illegal_parameter
    return _ALERT_FATAL


@ffi.callback("int(SSL *, void *)", error=_ALERT_FATAL)  # type: ignore[untyped-decorator]
def on_status_request(ssl: Any, _arg: Any) -> int:
    """``SSL_CTX_set_tlsext_status_cb``'s callback on a server, whose certificate is chosen by now."""
    connection = connections[ssl]
    if connection.stops_at_certificate:
        return _ALERT_FATAL
    staple = connection.ocsp_staple
    if staple is None:
        return _NOACK
    # OpenSSL frees it.
    memory = lib.OPENSSL_malloc(len(staple))
    ffi.memmove(memory, staple, len(staple))
    lib.SSL_set_tlsext_status_ocsp_resp(ssl, ffi.cast("unsigned char *", memory), len(staple))
    return _OK


@ffi.callback("int(SSL *, void *)", error=0)  # type: ignore[untyped-decorator]
def on_status_response(ssl: Any, _arg: Any) -> int:
    """``SSL_CTX_set_tlsext_status_cb``'s callback on a client, once the chain is verified; 0 refuses."""
    if lib.SSL_session_reused(ssl):
        # No certificate is presented, and so no response either.
        return 1
    connection = connections[ssl]
    try:
        connection.judge_staple(connection.stapled_response())
    except BaseException as error:  # noqa: BLE001 - cffi would print it, and forget it
        connection.keep(error)
        return 0
    return 1


@ffi.callback(  # type: ignore[untyped-decorator]
    "unsigned int(SSL *, char *, char *, unsigned int, unsigned char *, unsigned int)", error=0
)
def on_psk_client(ssl: Any, hint: Any, identity: Any, _max_identity: int, key: Any, _max_key: int) -> int:
    """``SSL_CTX_set_psk_client_callback``'s callback, up to TLS 1.2; 0 gives up."""
    if lib.SSL_version(ssl) == _TLS13:
        # It has no key beside the one that `on_psk_use_session` was asked for.
        return 0
    connection = connections[ssl]
    try:
        text = None if hint == NULL else ffi.string(hint).decode("utf-8", "replace")
        psk: PreSharedKey | None = connection.client_psk(text)
    except BaseException as error:  # noqa: BLE001 - cffi would print it, and forget it
        connection.keep(error)
        return 0
    if psk is None:
        return 0
    encoded = psk.identity.encode() + b"\0"
    ffi.memmove(identity, encoded, len(encoded))
    ffi.memmove(key, psk.key, len(psk.key))
    return len(psk.key)


@ffi.callback("unsigned int(SSL *, char *, unsigned char *, unsigned int)", error=0)  # type: ignore[untyped-decorator]
def on_psk_server(ssl: Any, identity: Any, key: Any, _max_key: int) -> int:
    """``SSL_CTX_set_psk_server_callback``'s callback, up to TLS 1.2; 0 says that it is unknown."""
    if lib.SSL_version(ssl) == _TLS13:
        # What TLS 1.3 has was decided from the ClientHello.
        return 0
    connection = connections[ssl]
    try:
        psk = connection.server_psk(ffi.string(identity))
    except BaseException as error:  # noqa: BLE001 - cffi would print it, and forget it
        connection.keep(error)
        return _NO_KEY_BUT_AN_ERROR
    if psk is None:
        return 0
    ffi.memmove(key, psk.key, len(psk.key))
    return len(psk.key)


@ffi.callback("int(SSL *, EVP_MD *, unsigned char **, size_t *, SSL_SESSION **)", error=0)  # type: ignore[untyped-decorator]
def on_psk_use_session(ssl: Any, digest: Any, identity: Any, identity_length: Any, session: Any) -> int:
    """``SSL_CTX_set_psk_use_session_callback``'s callback: a client's pre-shared key of TLS 1.3."""
    connection = connections[ssl]
    session[0] = NULL
    try:
        offer = connection.client_psk_session(retried=digest != NULL)
    except BaseException as error:  # noqa: BLE001 - cffi would print it, and forget it
        connection.keep(error)
        return 0
    if offer is not None:
        identity[0] = connection.keep_alive(offer[0])
        identity_length[0] = len(offer[0])
        session[0] = _session(offer[1])
    return 1


@ffi.callback("int(SSL *, unsigned char *, size_t, SSL_SESSION **)", error=0)  # type: ignore[untyped-decorator]
def on_psk_find_session(ssl: Any, identity: Any, identity_length: int, session: Any) -> int:
    """``SSL_CTX_set_psk_find_session_callback``'s callback: a server's pre-shared key of TLS 1.3.

    It is called for each identity until one is taken, tickets included.
    """
    der = connections[ssl].server_psk_session(bytes(ffi.buffer(identity, identity_length)))
    session[0] = NULL if der is None else _session(der)
    return 1


def _session(der: bytes) -> Any:
    """Return an ``SSL_SESSION *``; OpenSSL frees it."""
    source = ffi.new("unsigned char[]", der)
    return lib.d2i_SSL_SESSION(NULL, ffi.new("unsigned char **", source), len(der))


@ffi.callback("void(SSL *, int, int)")  # type: ignore[untyped-decorator]
def on_info(ssl: Any, where: int, _value: int) -> None:
    """``SSL_set_info_callback``'s callback: notices what nothing else tells.

    A client's session tickets, the begin and the end of each handshake, and in TLS 1.3 the end of a client's
    answer to being asked for a certificate.
    """
    connection = connections[ssl]
    try:
        if where == _HANDSHAKE_START:
            connection.on_handshake_start()
        elif where == _HANDSHAKE_DONE:
            connection.on_handshake_done()
        elif where == _CLIENT_STEP and ffi.string(lib.SSL_state_string_long(ssl)) == _READ_TICKET:
            connection.on_ticket()
        elif where == _SERVER_STEP and ffi.string(lib.SSL_state_string_long(ssl)) == _READ_FINISHED:
            connection.on_finished()
    except BaseException as error:  # noqa: BLE001 - cffi would print it, and forget it
        connection.keep(error)


@ffi.callback("void(SSL *, char *)")  # type: ignore[untyped-decorator]
def on_keylog(ssl: Any, line: Any) -> None:
    """``SSL_CTX_set_keylog_callback``'s callback; the other connections of the context have it too."""
    connection = connections.get(ssl)
    if connection is None:
        return
    try:
        connection.on_key(ffi.string(line).decode())
    except BaseException as error:  # noqa: BLE001 - cffi would print it, and forget it
        connection.keep(error)


@ffi.callback("void(int, int, int, void *, size_t, SSL *, void *)")  # type: ignore[untyped-decorator]
def on_message(
    sent: int, version: int, content_type: int, data: Any, length: int, ssl: Any, _arg: Any
) -> None:
    """``SSL_CTX_set_msg_callback``'s callback, of connections that are traced."""
    connection = connections.get(ssl)
    if connection is None:
        return
    try:
        connection.on_message(bool(sent), version, content_type, bytes(ffi.buffer(data, length)))
    except BaseException as error:  # noqa: BLE001 - cffi would print it, and forget it
        connection.keep(error)
