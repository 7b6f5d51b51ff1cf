"""Outcome: what a handshake has negotiated, and the verdict on the peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ._openssl.connection import Negotiated
from ._openssl.groups import ephemeral_key, iana_name
from ._openssl.verification import PeerVerification, certificate_error
from .certificates import Certificate
from .client_hello import ClientHello
from .context import SecureContext
from .diagnosis import DIAGNOSES
from .errors import (
    CertificateError,
    CertificateProblem,
    ConfigurationError,
    ConfigurationTypeError,
    IdentityError,
    ProtocolError,
)
from .info import ConnectionInfo, EphemeralKey
from .psk import psk_identity
from .record_layer import RecordLayer
from .server_flight import ephemeral_dh_bits, uses_dhe
from .sessions import PeerChains
from .signature_algorithms import shared_signature_algorithms

IdentityCheck = Callable[[str, Certificate | None], object]
"""``check_server_identity``: given the name and the certificate; raises, or returns an exception, to
refuse.  It may not be async."""

# Node's: what it refuses is within reach of an attacker (Logjam).
DEFAULT_MIN_DH_SIZE: Final = 1024


class Outcome(RecordLayer):
    """What a handshake has negotiated, and the verdict on the peer.

    Attributes:
        context: The context of the connection.
        server_name: Client: what is sent as SNI, or None.  Server: what the client sent, once it is known.
        client_hello: Server: the client's first message, once it is known.
    """

    __slots__ = (
        "_allows_psk",
        "_check_identity",
        "_early_data_accepted",
        "_identity",
        "_min_dh_size",
        "_ocsp_problem",
        "_reject_unauthorized",
        "_request_cert",
        "client_hello",
        "context",
        "server_name",
    )

    def _set_up_outcome(
        self,
        context: SecureContext,
        *,
        names: tuple[str | None, str],
        check_identity: IdentityCheck,
        min_dh_size: int,
        request_cert: bool,
        reject_unauthorized: bool,
        allows_psk: bool,
    ) -> None:
        self.context = context
        self.server_name, self._identity = names
        self._check_identity = check_identity
        self._min_dh_size = _dh_size(min_dh_size)
        self._request_cert = request_cert
        self._reject_unauthorized = reject_unauthorized
        self._allows_psk = allows_psk
        self.client_hello: ClientHello | None = None
        # Client: what became of early data, as far as there was any.
        self._early_data_accepted: bool | None = None
        self._ocsp_problem: CertificateProblem | None = None

    def _new_verification(self) -> PeerVerification | None:
        """Return the verdict that is to be made on the peer, or None if it is not asked for a certificate."""
        at = self.context.verification_time
        if not self.server_side:
            return PeerVerification(
                peer="server",
                reject=self._reject_unauthorized,
                at=at,
                host=self._identity,
                check_identity=self._check_identity,
            )
        if not self._request_cert:
            return None
        return PeerVerification(peer="client", reject=self._reject_unauthorized, at=at)

    def _negotiated_info(self, negotiated: Negotiated) -> ConnectionInfo:
        chains = self._peer_chains(negotiated)
        # Behind what was presented stands what OpenSSL has found in our own store.
        linked = dict.fromkeys(certificate.raw for certificate in (*chains.presented, *chains.verified))
        peer = Certificate.chain(tuple(linked)) if chains.presented else None
        asked = not self.server_side or self._request_cert
        psk = self._used_psk(negotiated)
        error = self._verdict(chains, negotiated, by_psk=psk is not None) if asked else None
        # OpenSSL keeps what it had built of a chain that it did not trust in the end.
        trusted = error is None or isinstance(error, IdentityError)
        if error is not None and self._reject_unauthorized:
            # OpenSSL has no objection where the cipher suite is anonymous.
            self._give_up(error)
        return ConnectionInfo(
            protocol=negotiated.protocol,
            cipher=negotiated.cipher,
            ephemeral_key=self._ephemeral_key(negotiated),
            shared_signature_algorithms=self._shared_signature_algorithms(negotiated.protocol),
            alpn_protocol=negotiated.alpn_protocol,
            server_name=self.server_name,
            authorized=asked and error is None,
            authorization_error=error,
            session_reused=negotiated.session_reused,
            psk_identity=psk,
            certificate=self._own_certificate(negotiated, by_psk=psk is not None),
            peer_certificate=peer,
            peer_certificate_chain=chains.presented,
            verified_chain=chains.verified if trusted else (),
            ocsp_response=None if self.server_side else self.stapled_response(),
            early_data_accepted=self._accepted_early_data(),
        )

    def _peer_chains(self, negotiated: Negotiated) -> PeerChains:
        """Return what the peer presented, as far as OpenSSL knows."""
        return PeerChains(
            tuple(map(Certificate, negotiated.peer_chain)), tuple(map(Certificate, negotiated.verified_chain))
        )

    def _accepted_early_data(self) -> bool | None:
        if not self.server_side:
            return self._early_data_accepted
        if self.client_hello is None or not self.client_hello.early_data:
            return None
        return bool(self.early_data)

    def _shared_signature_algorithms(self, protocol: str) -> tuple[str, ...]:
        if self.client_hello is None:
            return ()
        own = self.context.signature_algorithms
        offered = self.client_hello.signature_algorithms
        return shared_signature_algorithms(own, offered, protocol, own_order=self.prefers_own_order)

    def _verdict(
        self, chains: PeerChains, negotiated: Negotiated, *, by_psk: bool
    ) -> CertificateError | None:
        """Return why the peer is not to be trusted, or None."""
        verification = self.verification
        assert verification is not None
        if not chains.presented and not by_psk:
            return CertificateError(
                "the peer presented no certificate",
                code="UNABLE_TO_GET_ISSUER_CERT",
                hint=DIAGNOSES["ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"].remedy,
            )
        if not verification.judged:
            # No certificate was presented, so OpenSSL has not asked for a verdict.
            chain = chains.verified or chains.presented[:1]
            return verification.without_handshake(chain, negotiated.verify_result)
        error = verification.error()
        if self._ocsp_problem is None:
            return error
        refusal = certificate_error([self._ocsp_problem], peer="server", at=self.context.verification_time)
        if error is None:
            return refusal
        # It is named after what it would have been refused for first.
        error.problems += refusal.problems
        error.hint += f" {refusal.hint}"
        return error

    @staticmethod
    def _own_certificate(negotiated: Negotiated, *, by_psk: bool) -> Certificate | None:
        if by_psk and not negotiated.cipher.standard_name.startswith("TLS_RSA_PSK_"):
            # OpenSSL names the one that it would have presented.
            return None
        return None if negotiated.certificate is None else Certificate(negotiated.certificate)

    def _used_psk(self, negotiated: Negotiated) -> str | None:
        """Return the identity of the pre-shared key of this handshake, or of the one that it resumes."""
        if not self._allows_psk:
            return None
        if not negotiated.session_reused and "_PSK_" not in negotiated.cipher.standard_name:
            return None
        session = self.current_session()
        return None if session is None else psk_identity(session)

    def _ephemeral_key(self, negotiated: Negotiated) -> EphemeralKey | None:
        if negotiated.session_reused and negotiated.protocol != "TLSv1.3":
            # The group that OpenSSL names is the one that the session was made with.
            return None
        if negotiated.group is not None:
            return ephemeral_key(negotiated.group)
        if not uses_dhe(negotiated.cipher.standard_name):
            return None
        bits = self.context.dh_bits if self.server_side else ephemeral_dh_bits(bytes(self.flight or b""))
        return None if bits is None else EphemeralKey(type="DH", name=None, size=bits)

    def _check_group(self, negotiated: Negotiated) -> None:
        """Refuse a key exchange that is none of those that the context requires."""
        required = self.context.required_groups
        group = None if negotiated.group is None else iana_name(negotiated.group)
        if required and group not in required:
            self._give_up(
                ProtocolError(
                    f"the keys were exchanged by {group or negotiated.cipher.standard_name}; "
                    f"require_groups is {':'.join(required)}",
                    code="ERR_SSL_NO_SUITABLE_GROUPS",
                )
            )

    def _hides_dh_size(self, negotiated: Negotiated) -> bool:
        """Whether a server has chosen a group, and said so behind so much that it was not seen."""
        return (
            uses_dhe(negotiated.cipher.standard_name)
            and not negotiated.session_reused
            and ephemeral_dh_bits(bytes(self.flight or b"")) is None
        )


def _dh_size(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationTypeError(
            f'The "options.min_dh_size" property must be of type number. Received {value!r}',
            option="min_dh_size",
        )
    if value < 1:
        raise ConfigurationError(
            f'The value of "options.min_dh_size" is out of range. It must be > 0. Received {value}',
            code="ERR_OUT_OF_RANGE",
            option="min_dh_size",
        )
    return value
