"""ServerPolicy: what a server answers to a ClientHello, decided before OpenSSL has seen it.

The context is looked for in this order:

1. `sni_callback`, called only if the client sent a name; a context that it returns is taken;
2. the contexts added by `add_context`: of those whose pattern matches the name, the one added last;
3. the default context.

Names are compared without regard to case and to a dot at their end, as `trio_tlsnode.context_table` tells;
`sni_callback` is given the name as the client sent it.  The application protocol comes next:
`alpn_callback` knows the context's name and may still exchange the certificate.  Then, for the context that
is found, the pre-shared key and the OCSP response.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import weakref
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import trio

from .alerts import Alert
from .alpn import ALPNProtocols, no_application_protocol, parse_alpn_protocols, select_alpn_protocol
from .choice import Choice
from .context import SecureContext
from .context_table import ContextTable
from .engine import Engine
from .errors import CallbackError, ConfigurationError, ConfigurationTypeError
from .handshake import require_psk_suite, verify_mode_for
from .keylog import KeyLog, key_log_sink
from .limits import Limit
from .ocsp import is_ocsp_response
from .option_names import refuse_unknown
from .option_values import check_flag, check_limit, check_seconds, optional_callable
from .psk import MAX_IDENTITY, PreSharedKey, PSKRole, check_identity_hint
from .server_options import (
    ALPNCallback,
    NewSessionCallback,
    OCSPCallback,
    PSKAnswer,
    ResumeCallback,
    ServerOptions,
    ServerPSKCallback,
    SNICallback,
)
from .sessions import Session
from .tickets import TicketGenerations
from .timeouts import DEFAULT_CLOSE_TIMEOUT, DEFAULT_HANDSHAKE_TIMEOUT, Timeouts

if TYPE_CHECKING:
    from ._openssl.ssl_ctx import SSLContext
    from .client_hello import ClientHello
    from .stream import TLSStream
    from .trace import Trace

_TLS13 = 0x0304
# What OpenSSL takes at most, whatever it has promised.
_MOST_EARLY_DATA = 16384
# So many identities of a client are looked for: it may name some thousand, each of which may be a query.
_MOST_IDENTITIES = 8


class ServerPolicy:
    """What a server answers to a ClientHello; one for all its connections.

    Args:
        context: The default context.
        max_handshakes: How many handshakes there may be at a time, counted from a complete ClientHello.

    The other arguments are those of `ServerOptions`.

    Attributes:
        context: The default context.
        contexts: The contexts for other names.
        alpn_protocols: The server's application protocols, most preferred first.
        request_cert: Whether clients are asked for a certificate.
        reject_unauthorized: Whether a client that is not verified is refused.
        timeouts: The time-outs of the connections.
        on_new_session: As given.
        handshakes: How many of the clients that have said hello are served at a time until they are secure.

    Raises:
        ConfigurationError: an option cannot be used.
    """

    def __init__(
        self,
        context: SecureContext,
        *,
        sni_callback: SNICallback | None = None,
        alpn_protocols: ALPNProtocols | None = None,
        alpn_callback: ALPNCallback | None = None,
        request_cert: bool = False,
        reject_unauthorized: bool = True,
        ocsp_callback: OCSPCallback | None = None,
        resume: ResumeCallback | None = None,
        on_new_session: NewSessionCallback | None = None,
        ticket_rotation: float | None = None,
        psk: ServerPSKCallback | None = None,
        psk_identity_hint: str | None = None,
        handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        idle_timeout: float | None = None,
        send_timeout: float | None = None,
        max_early_data: int = 0,
        keylog: KeyLog = None,
        trace: Trace = None,
        renegotiation_limit: int | None = None,
        renegotiation_window: float | None = None,
        https_compatible: bool = False,
        max_handshakes: int | None = None,
    ) -> None:
        self.context = _checked(context)
        self.contexts = ContextTable()
        self.alpn_protocols = parse_alpn_protocols(alpn_protocols)
        self.request_cert = check_flag("request_cert", request_cert)
        self.reject_unauthorized = check_flag("reject_unauthorized", reject_unauthorized)
        self.timeouts = Timeouts(handshake_timeout, close_timeout, idle_timeout, send_timeout)
        if trace is not None and trace is not False:
            # Most programs trace nothing, and need not load what it takes.
            from .trace import trace_for_each

            trace = trace_for_each(trace)
        self._engine_options: dict[str, Any] = {
            "https_compatible": https_compatible,
            "keylog": key_log_sink(keylog),
            "trace": trace,
            "renegotiation_limit": renegotiation_limit,
            "renegotiation_window": renegotiation_window,
        }
        self.handshakes = Limit("max_handshakes", max_handshakes)
        # What is wrong with these is said now.
        Engine(context, server_side=True, **self._engine_options)
        self._sni_callback = optional_callable("sni_callback", sni_callback)
        self._alpn_callback = optional_callable("alpn_callback", alpn_callback)
        if alpn_callback is not None and alpn_protocols is not None:
            raise ConfigurationError(
                "alpn_callback and alpn_protocols are two ways to choose: give one of them",
                code="ERR_TLS_ALPN_CALLBACK_WITH_PROTOCOLS",
                option="alpn_callback",
            )
        self._max_early_data = _early_data_limit(max_early_data)
        self._ocsp_callback = optional_callable("ocsp_callback", ocsp_callback)
        self._resume = optional_callable("resume", resume)
        self.on_new_session = optional_callable("on_new_session", on_new_session)
        self._ticket_rotation = _rotation(ticket_rotation)
        # Only those for which there is more to know than the context itself does.
        self._generations: weakref.WeakKeyDictionary[SecureContext, TicketGenerations] = (
            weakref.WeakKeyDictionary()
        )
        self._psk = optional_callable("psk", psk)
        self._psk_identity_hint = check_identity_hint(psk_identity_hint)

    def require_identity(self, context: SecureContext) -> SecureContext:
        """Return a context, which has something for clients to verify the server by.

        Args:
            context: The context.

        Raises:
            ConfigurationTypeError: it is none.
            ConfigurationError: it has no certificate, and the server no pre-shared keys; or no server can use
                it.
        """
        if not _checked(context).has_identity:
            if self._psk is None:
                raise ConfigurationError(
                    "a server's context needs a certificate and its key: SecureContext(key=..., cert=...); "
                    "without one, the server needs psk=",
                    option="context",
                )
            require_psk_suite(context)
        # With it come the ticket keys: made now, they are shared by all that are forked later.
        self._ssl_ctx(context, None if self._psk is None else self._psk_role(None))
        return context

    def _ssl_ctx(self, context: SecureContext, psk: PSKRole | None) -> SSLContext:
        """Return what connections that may resume a session are made from."""
        return context.ssl_ctx(
            server_side=True,
            verify_mode=verify_mode_for(self.request_cert, self.reject_unauthorized),
            psk=psk,
            max_early_data=self._max_early_data,
        )

    def _psk_role(self, psk: PreSharedKey | None) -> PSKRole:
        return PSKRole(None if psk is None else psk.hash, self._psk_identity_hint)

    def new_engine(self) -> Engine:
        """Return the engine of a new connection."""
        return Engine(self.context, server_side=True, clock=trio.current_time, **self._engine_options)

    async def decide(self, stream: TLSStream, engine: Engine) -> None:
        """Choose for a connection whose ClientHello has been read.  Waits only for a callback that does.

        Args:
            stream: The connection's stream.
            engine: Its engine.

        Raises:
            CallbackError: a callback raised, or returned what it may not; the alert is pending.
            ProtocolError: no application protocol in common; the alert is pending.
        """
        hello = engine.client_hello
        assert hello is not None
        context = self.context
        if hello.server_name is not None:
            context = await self._context_for(hello.server_name, engine)
        protocol = select_alpn_protocol(self.alpn_protocols, hello.alpn_protocols)
        choice = None
        if self._alpn_callback is not None and hello.alpn_protocols:
            choice = Choice(hello, stream.remote_address)
            protocol = await self._ask_for_protocol(choice, engine)
            try:
                context = choice.applied_to(context)
            except ConfigurationError as error:
                _refuse_over(error, "alpn_callback", "chose credentials that this context cannot use", engine)
        elif protocol is None and self.alpn_protocols and hello.alpn_protocols:
            engine.refuse(no_application_protocol(), Alert.no_application_protocol)
        psk = role = None
        if self._psk is not None:
            psk = await self._offered_psk(hello, context, stream, engine)
            role = self._psk_role(psk)
        staple = None
        if self._ocsp_callback is not None and hello.requests_ocsp and psk is None:
            staple = await self._staple(context, engine)
        tickets_of = None
        resumable = True
        if self._resume is not None and _wants_to_resume(hello, context):
            choice = choice or Choice(hello, stream.remote_address)
            resumable = await self._may_resume(choice, engine)
        if resumable and (self._generations or self._ticket_rotation is not None):
            context, tickets_of = self._generation(context, hello, role)
        engine.choose(
            context,
            tickets_of=tickets_of,
            resumable=resumable,
            max_early_data=self._max_early_data,
            alpn_protocol=protocol,
            request_cert=self.request_cert,
            reject_unauthorized=self.reject_unauthorized,
            ocsp_staple=staple,
            psk=psk,
            psk_role=role,
            find_psk=None if self._psk is None else self._find_psk,
        )

    async def _context_for(self, server_name: str, engine: Engine) -> SecureContext:
        if self._sni_callback is not None:
            found = await self._ask(
                "sni_callback", self._sni_callback, server_name, engine=engine, alert=Alert.unrecognized_name
            )
            if isinstance(found, SecureContext):
                try:
                    self.require_identity(found)
                except ConfigurationError as error:
                    _refuse_over(error, "sni_callback", "returned a context that no server can use", engine)
                return found
            if found is not None:
                _refuse_result("sni_callback", f"{found!r}, which is no SecureContext", engine)
        return self.contexts.find(server_name) or self.context

    async def _ask_for_protocol(self, choice: Choice, engine: Engine) -> str:
        answer = await self._ask(
            "alpn_callback", self._alpn_callback, choice, engine=engine, alert=Alert.no_application_protocol
        )
        if answer is None:
            engine.refuse(no_application_protocol(), Alert.no_application_protocol)
        protocol = answer
        if isinstance(answer, (bytes, bytearray, memoryview)):
            protocol = bytes(answer).decode("latin-1")
        if not isinstance(protocol, str) or protocol not in choice.protocols:
            _refuse_result(
                "alpn_callback",
                f"{answer!r}, which the client does not offer",
                engine,
                alert=Alert.no_application_protocol,
                code="ERR_TLS_ALPN_CALLBACK_INVALID_RESULT",
            )
        return protocol

    async def _staple(self, context: SecureContext, engine: Engine) -> bytes | None:
        presented = engine.certificate_for_client(context)
        if presented is None:
            return None
        issued = context.issued(presented)
        response = await self._ask("ocsp_callback", self._ocsp_callback, *issued, engine=engine)
        if response is None:
            return None
        if not isinstance(response, (bytes, bytearray, memoryview)):
            _refuse_result("ocsp_callback", f"{response!r}, which is no DER", engine)
        staple = bytes(response)
        if not is_ocsp_response(staple):
            # OpenSSL would leave it out, and say nothing.
            _refuse_result("ocsp_callback", f"{len(staple)} bytes, which are no OCSP response", engine)
        return staple

    async def _offered_psk(
        self, hello: ClientHello, context: SecureContext, stream: TLSStream, engine: Engine
    ) -> PreSharedKey | None:
        """Return the first key that is known of those that a client of TLS 1.3 names."""
        if _TLS13 not in hello.supported_versions or not context.allows_tls13:
            return None
        named = filter(None, map(_identity, hello.psk_identities))
        for identity in itertools.islice(named, _MOST_IDENTITIES):
            answer = await self._ask("psk", self._psk, stream, identity, engine=engine)
            try:
                psk = _pre_shared_key(identity, answer)
            except ConfigurationError as error:
                _refuse_result("psk", f"what is no key: {error.reason}", engine)
            if psk is not None:
                return psk
        return None

    def _find_psk(self, stream: TLSStream, named: bytes) -> PreSharedKey | None:
        """Return the key of the identity that a client of TLS 1.2 names, or None; OpenSSL waits.

        Raises:
            CallbackError: `psk` raised, is async, or returned what it may not.
        """
        identity = _identity(named)
        if identity is None or self._psk is None:
            return None
        try:
            answer = self._psk(stream, identity)
        except Exception as error:
            raise CallbackError("psk raised", callback="psk") from error
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise CallbackError(
                "psk is async, but in TLS 1.2 OpenSSL cannot wait for it: "
                'use min_version="TLSv1.3", or a callback that returns the key',
                callback="psk",
            )
        try:
            return _pre_shared_key(identity, answer)
        except ConfigurationError as error:
            raise CallbackError(f"psk returned what is no key: {error.reason}", callback="psk") from None

    async def _may_resume(self, choice: Choice, engine: Engine) -> bool:
        answer = await self._ask("resume", self._resume, choice, engine=engine)
        if not isinstance(answer, bool):
            _refuse_result("resume", f"{answer!r}, which is no bool", engine)
        return answer

    def _generation(
        self, context: SecureContext, hello: ClientHello, psk: PSKRole | None
    ) -> tuple[SecureContext, SecureContext | None]:
        """Return the context to use, and the one that can open the client's ticket if that is another."""
        generations = self._generations.get(context)
        if generations is None:
            if self._ticket_rotation is None:
                return context, None
            generations = self._generations[context] = self._new_generations(context)
        current = generations.advance(context, trio.current_time())
        return current, generations.opener(hello, partial(self._ssl_ctx, psk=psk))

    def _new_generations(self, context: SecureContext) -> TicketGenerations:
        return TicketGenerations(context, rotation=self._ticket_rotation)

    def replace_context(self, context: SecureContext, *, in_place_of: SecureContext | None = None) -> None:
        """Use another context for new connections, and go on to honour the tickets of the one before it.

        Args:
            context: The new one.
            in_place_of: The one that it replaces, wherever it is in use; None is the default one, as such.

        Raises:
            ConfigurationError: the one to be replaced is not in use.
        """
        old = self.context if in_place_of is None else in_place_of
        added = in_place_of is not None and self.contexts.replace(in_place_of, context)
        if old is not self.context and not added:
            raise ConfigurationError(
                "this server does not use the context to be replaced", option="in_place_of"
            )
        if context is old:
            return
        predecessor = self._generations.pop(old, None) or self._new_generations(old)
        successor = self._generations.setdefault(context, self._new_generations(context))
        successor.succeed(context, predecessor.honoured(old))
        if old is self.context:
            self.context = context

    async def tell_new_session(self, engine: Engine) -> None:
        """Tell the application of the session that a handshake has made.

        Args:
            engine: The connection's engine, whose handshake is done.

        Raises:
            CallbackError: `on_new_session` raised.
        """
        info = engine.info
        session = engine.session
        if session is None or info is None or (info.session_reused and info.protocol != "TLSv1.3"):
            return
        if identifier := Session.parse(session).session_id:
            await self._ask("on_new_session", self.on_new_session, identifier, session, engine=engine)

    @staticmethod
    async def _ask(
        option: str, callback: Any, *args: object, engine: Engine, alert: Alert = Alert.internal_error
    ) -> Any:
        """Call a callback of the application's, sync or async; what it raises refuses this connection."""
        start = 0.0 if engine.trace is None else trio.current_time()
        try:
            try:
                answer = callback(*args)
                if inspect.isawaitable(answer):
                    answer = await answer
            finally:
                if engine.trace is not None:
                    engine.tell_wait(option, start)
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - this connection's alone
            # A nursery of the callback's may raise both its being cancelled and what failed over that.
            raised = error if isinstance(error, Exception) else error.split(trio.Cancelled)[1]
            try:
                if not isinstance(raised, Exception):
                    raise
                _refuse_over(raised, option, "raised", engine, alert)
            finally:
                # Kept, it would be a cycle: its traceback holds this frame.
                del raised
        return answer


def policy_of_stream(context: SecureContext, options: Mapping[str, Any]) -> ServerPolicy:
    """Return the policy of one server's stream.

    Args:
        context: The stream's context.
        options: Those of `ServerOptions`.

    Raises:
        ConfigurationError: one cannot be used.
    """
    refuse_unknown(options, ServerOptions.__annotations__.keys(), of="a server's stream")
    return ServerPolicy(context, **options)


def _checked(context: SecureContext) -> SecureContext:
    if not isinstance(context, SecureContext):
        raise ConfigurationTypeError(
            f"context must be a SecureContext. Received {context!r}", option="context"
        )
    context.check_server_side()
    return context


def _refuse_over(
    cause: Exception, option: str, what: str, engine: Engine, alert: Alert = Alert.internal_error
) -> NoReturn:
    error = CallbackError(f"{option} {what}", callback=option)
    error.__cause__ = cause
    engine.refuse(error, alert)


def _refuse_result(
    option: str, what: str, engine: Engine, *, alert: Alert = Alert.internal_error, code: str | None = None
) -> NoReturn:
    engine.refuse(CallbackError(f"{option} returned {what}", callback=option, code=code), alert)


def _wants_to_resume(hello: ClientHello, context: SecureContext) -> bool:
    """Whether a client names a session; in TLS 1.3 its session identifier says nothing."""
    if hello.psk_identities or hello.session_ticket:
        return True
    newest = _TLS13 in hello.supported_versions and context.allows_tls13
    return bool(hello.session_id) and not newest


def _early_data_limit(value: int) -> int:
    option = "max_early_data"
    if check_limit(option, value) > _MOST_EARLY_DATA:
        raise ConfigurationError(
            f'The value of "options.{option}" is out of range. It must be <= {_MOST_EARLY_DATA}. '
            f"Received {value}",
            code="ERR_OUT_OF_RANGE",
            option=option,
        )
    return value


def _rotation(value: float | None) -> float | None:
    if value is None:
        return None
    if check_seconds("ticket_rotation", value) < 1:
        raise ConfigurationError(
            f"ticket_rotation must be at least 1 second. Received {value!r}",
            code="ERR_OUT_OF_RANGE",
            option="ticket_rotation",
        )
    return value


def _identity(named: bytes) -> str | None:
    """Return the identity of a pre-shared key, or None if it can be none: a ticket, say."""
    if not 1 <= len(named) <= MAX_IDENTITY or 0 in named:
        return None
    try:
        return named.decode()
    except UnicodeDecodeError:
        return None


def _pre_shared_key(identity: str, answer: PSKAnswer) -> PreSharedKey | None:
    """Return what ``psk`` answered as a key under the name that the client knows.

    Raises:
        ConfigurationError: it is no key.
    """
    if answer is None:
        return None
    if isinstance(answer, PreSharedKey):
        return dataclasses.replace(answer, identity=identity)
    return PreSharedKey(identity, bytes(answer) if isinstance(answer, (bytearray, memoryview)) else answer)
