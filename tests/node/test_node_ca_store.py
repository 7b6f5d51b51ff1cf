"""Certificate stores, as Node.js's own tests have them: whom contexts trust, and what changes that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from engine_pairs import shake_hands
from meetings import come_to, read_to_end
from parties import agent, crl, party, trust

import trio_tlsnode as tls
from trio_tlsnode import (
    CertificateError,
    SecureContext,
    TLSServer,
    TLSStream,
    ca_store,
    defaults,
    wrap_client,
)

# Some of Mozilla's roots have serial numbers that RFC 5280 does not allow.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Read everything anew, as a new process does, and have no extra list."""

    def forget() -> None:
        defaults.reset()
        ca_store.store.cache_clear()
        ca_store.default.cache_clear()

    monkeypatch.delenv(ca_store.EXTRA_CA_VARIABLE, raising=False)
    forget()
    yield monkeypatch
    forget()


def verdict(client: SecureContext, name: str) -> str | None:
    """Return why a client refuses an agent, or None; whoever it trusts has the right name."""
    outcome = shake_hands(
        client, SecureContext(**party(name).options), check_server_identity=lambda _name, _certificate: None
    )
    error = outcome.client_error
    assert error is None or isinstance(error, CertificateError)
    return None if error is None else error.code


async def say_hello(stream: TLSStream) -> None:
    await stream.send_all(b"hello")


# The option ca

FORMS: list[Callable[[list[bytes]], Any]] = [
    lambda pems: pems,
    lambda pems: b"\n".join(pems),
    lambda pems: b"\n".join(pems).decode(),
]


@pytest.mark.feature("F2")
@pytest.mark.node("test-tls-ca-concat.js")
@pytest.mark.parametrize("form", FORMS, ids=["a list", "bytes", "text"])
def test_what_is_no_authority_may_stand_before_one(form: Any) -> None:
    assert verdict(SecureContext(ca=form(trust("agent1", "ca1"))), "agent6") is None


@pytest.mark.feature("F2")
@pytest.mark.feature("B10")
@pytest.mark.node("test-tls-multiple-cas-as-string.js")
@pytest.mark.parametrize("form", FORMS, ids=["a list", "bytes", "text"])
async def test_several_authorities_are_trusted_by_servers_and_clients_alike(
    form: Any, nursery: trio.Nursery
) -> None:
    ca = form(trust("ca1", "ca2"))
    judged = []

    async def judge(stream: TLSStream) -> None:
        judged.append(stream.authorized)

    server = TLSServer(judge, SecureContext(**agent("agent2"), ca=ca), request_cert=True)
    server.add_context("agent3", SecureContext(**agent("agent3"), ca=ca))
    for host, name in (("agent3", "agent1"), ("agent3", "agent4")):
        client = SecureContext(**agent(name), ca=ca)
        async with await wrap_client(come_to(server, nursery), host=host, context=client) as stream:
            assert stream.authorized
            assert await read_to_end(stream) == b""
    assert judged == [True, True]


@pytest.mark.feature("F2")
@pytest.mark.node("test-tls-add-ca-cert.js")
def test_authorities_of_one_s_own_replace_the_roots_unless_both_are_given() -> None:
    # It stands for the roots of which a public server's certificate is.
    defaults.ca = trust("ca1")
    own = trust("ca2")
    assert verdict(SecureContext(), "agent6") is None
    assert verdict(SecureContext(ca=own), "agent6") == "UNABLE_TO_GET_ISSUER_CERT_LOCALLY"
    assert verdict(SecureContext(ca=[*tls.get_ca_certificates(), *own]), "agent6") is None


# The extra list


@pytest.mark.feature("F2")
@pytest.mark.feature("F4")
@pytest.mark.feature("F5")
@pytest.mark.node("test-tls-env-extra-ca-with-options.js")
@pytest.mark.parametrize(
    "options",
    [
        lambda: {"ca": [*tls.get_ca_certificates(), *trust("ca1")]},
        lambda: {"crl": crl("ca2")},
        lambda: {"pfx": party("agent1").pfx(b"sample"), "passphrase": "sample"},
        lambda: {"pfx": party("agent1").pfx(b"sample", "ca1"), "passphrase": "sample"},
    ],
    ids=["another authority beside", "a revocation list", "PKCS#12", "PKCS#12 with an authority"],
)
def test_other_options_leave_the_extra_list_in_force(
    options: Callable[[], dict[str, Any]], tmp_path: Path, fresh_process: pytest.MonkeyPatch
) -> None:
    extra = tmp_path / "extra.pem"
    extra.write_bytes(party("ca2").single)
    fresh_process.setenv(ca_store.EXTRA_CA_VARIABLE, str(extra))
    assert verdict(SecureContext(**options()), "agent3") is None


# The default list


def identities(pems: Any) -> set[Any]:
    certificates = [
        x509.load_pem_x509_certificate(pem if isinstance(pem, bytes) else pem.encode()) for pem in pems
    ]
    return {(one.serial_number, one.issuer, one.subject) for one in certificates}


@pytest.mark.feature("G7")
@pytest.mark.node("test-tls-set-default-ca-certificates-basic.js")
@pytest.mark.parametrize(
    "chosen",
    [
        lambda: trust("ca1"),
        list,
        tls.root_certificates,
        lambda: [*tls.root_certificates(), *trust("ca1")],
        lambda: tls.root_certificates()[:3],
        lambda: 3 * trust("ca1"),
    ],
    ids=["one", "none", "bundled", "one more", "three", "one thrice"],
)
def test_the_list_that_is_set_is_the_one_that_is_told(chosen: Callable[[], Any]) -> None:
    others = [tls.get_ca_certificates(name) for name in ("bundled", "system")]
    for _ in range(2):
        defaults.ca = chosen()
        told = tls.get_ca_certificates()
        assert told is tls.get_ca_certificates("default")
        assert identities(told) == identities(chosen())
        assert len(told) == len(set(chosen()))
        assert [tls.get_ca_certificates(name) for name in ("bundled", "system")] == others


@pytest.mark.feature("G7")
@pytest.mark.node("test-tls-set-default-ca-certificates-mixed-types.js")
def test_one_list_may_hold_every_form() -> None:
    defaults.ca = [
        party("ca1").single.decode(),
        party("ca2").single,
        bytearray(party("ca3").single),
        memoryview(party("ca4").single),
        party("ca5").certificate,
    ]
    assert identities(tls.get_ca_certificates()) == identities(trust("ca1", "ca2", "ca3", "ca4", "ca5"))


@pytest.mark.feature("G7")
@pytest.mark.feature("A19")
@pytest.mark.node("test-tls-set-default-ca-certificates-reset-https-request.js")
async def test_no_session_outlives_the_trust_that_it_was_made_under(nursery: trio.Nursery) -> None:
    server = TLSServer(say_hello, SecureContext(**agent("agent1")))
    sessions = tls.SessionCache()

    async def is_resumed() -> bool:
        transport = come_to(server, nursery)
        async with await wrap_client(transport, host="agent1", session_cache=sessions) as stream:
            assert await read_to_end(stream) == b"hello"
            return stream.info.session_reused

    defaults.ca = trust("ca1")
    assert [await is_resumed(), await is_resumed()] == [False, True]
    defaults.ca = tls.root_certificates()
    with pytest.raises(CertificateError) as caught:
        await is_resumed()
    assert caught.value.code == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
    defaults.ca = trust("ca1")
    await is_resumed()
