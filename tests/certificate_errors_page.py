"""What docs/certificate-errors.md says of each code, from making each failure for real.

Between the page's markers stands what this module writes: ``python tests/certificate_errors_page.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio
from faults import AUTHORITY, FAULTS, issued_for, judge_and_presenter, meet, only, shown_by
from staples import BAD_STAPLES, judge_and_stapler, leaf
from trio.testing import memory_stream_pair

from trio_tlsnode import Alert, CertificateError, PeerAlert, SecureContext, TLSStream
from trio_tlsnode._openssl.verification import name_of, text_of
from trio_tlsnode.diagnosis import DIAGNOSES
from trio_tlsnode.testing import Authority

PAGE = Path(__file__).parent.parent / "docs" / "certificate-errors.md"
VERSION = "TLSv1.3"

_MESSAGES = {name_of(result): text_of(result) for result in range(1, 104)} | {
    "ERR_TLS_CERT_ALTNAME_FORMAT": "Invalid subject alternative name string",
    "ERR_OSSL_ASN1_DECODE_ERROR": "the subject (or another part) cannot be read",
}
# What differs from one run to the next, and what stands for it.
_CHANGING = (
    (r"trustme v[\d.]+, Testing CA #[\w-]+", "Example CA"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "DATE"),
    (r"([0-9A-F]{2}:){31}[0-9A-F]{2}", "FINGERPRINT"),
    (r"(?<=serial number )[0-9A-F]+", "NUMBER"),
)


def failures() -> Iterator[tuple[str, TLSStream, TLSStream]]:
    """Yield, for each failure, how it is made, and two streams: one judges, and the other shows itself."""
    for fault in FAULTS:
        arguments = ["name", *(f"{option}={value!r}" for option, value in fault.options.items())]
        how = f"`authority.{fault.method}({', '.join(arguments)})`"
        if fault.crl is not None:
            how += f" and `crl=authority.{fault.crl}()`"
        yield how, *judge_and_presenter(fault.issued, fault.presenters[0], VERSION, judging=fault.judging)
    good, below = issued_for("good"), issued_for("good", intermediates=1)
    yield (
        "`authority.good(name)` and `crl=` with the lists of another authority",
        *judge_and_presenter(good, "server", VERSION, judging={"crl": Authority().crl()}),
    )
    yield (
        "`authority.good(name, intermediates=1)` and `ca=` with its `.intermediates`",
        *judge_and_presenter(below, "server", VERSION, judging={"ca": below.intermediates}),
    )
    yield (
        "`authority.wrong_name(name)`",
        *judge_and_presenter(issued_for("wrong_name"), "server", VERSION),
    )
    left, right = memory_stream_pair()
    context = SecureContext(ca=AUTHORITY.ca, **shown_by("good"))
    yield (
        "a client without `cert=`, and `request_cert=True`",
        TLSStream(left, context, server_side=True, request_cert=True),
        TLSStream(right, SecureContext(ca=AUTHORITY.ca, **only(VERSION)), host="localhost"),
    )
    for staple in BAD_STAPLES:
        version = "TLSv1.2" if staple.swapped else VERSION
        options: dict[str, Any] = {
            "issued": staple.issued(),
            "ocsp": staple.ocsp,
            "swapped": staple.swapped,
        }
        yield staple.how, *judge_and_stapler(staple.response, version, **options)
    yield (
        "`b'garbage'` put in the place of the staple on the way, and `ocsp='verify'`",
        *judge_and_stapler(b"garbage", "TLSv1.2", swapped=True, ocsp="verify"),
    )
    left, right = memory_stream_pair()
    response = AUTHORITY.ocsp_response(leaf())
    alone = SecureContext(ca=leaf().cert, allow_partial_trust_chain=True, **only(VERSION))
    without_issuer = SecureContext(ca=[], **leaf().options)
    yield (
        "`authority.ocsp_response(issued)` stapled, `ocsp='verify'`, and `ca=` with the certificate itself",
        TLSStream(left, alone, host="localhost", ocsp="verify"),
        TLSStream(right, without_issuer, server_side=True, ocsp_callback=lambda *_: response),
    )


async def made() -> dict[str, list[tuple[str, CertificateError, Alert | int]]]:
    """Make each failure; return by its code how it was made, the error, and what the other side was told."""
    found: dict[str, list[tuple[str, CertificateError, Alert | int]]] = {}
    for how, judge, presenter in failures():
        error, told = await meet(judge, presenter)
        assert isinstance(error, CertificateError), how
        assert isinstance(told, PeerAlert), how
        found.setdefault(error.code, []).append((how, error, told.alert))
    return found


def section(code: str, cases: list[tuple[str, CertificateError, Alert | int]]) -> str:
    """Return what the page says of a code that can be made."""
    diagnosis = DIAGNOSES[code]
    alerts = dict.fromkeys(Alert(alert) for _, _, alert in cases)
    return "\n".join(
        [
            f"### {code}",
            "",
            f"- Message: {_unchanging(cases[0][1].reason)}",
            f"- Cause: {diagnosis.cause}",
            f"- Remedy: {diagnosis.remedy}",
            f"- The peer is told: {' or '.join(f'`{alert.name}` ({alert.value})' for alert in alerts)}",
            *(
                line
                for how, case, _ in cases
                for line in (f"- Made by {how}:", "", f"  > {_unchanging(case.hint)}", "")
            ),
        ]
    )


def table(codes: list[str]) -> str:
    """Return what the page says of the codes that are not made."""
    rows = [
        f"| `{code}` | {_MESSAGES[code]} | {DIAGNOSES[code].cause} | {DIAGNOSES[code].remedy} |"
        for code in codes
    ]
    return "\n".join(["| Code | Message | Cause | Remedy |", "|---|---|---|---|", *rows, ""])


async def parts() -> dict[str, str]:
    """Return what stands between the page's markers, by their names."""
    found = await made()
    others = DIAGNOSES.keys() - found.keys()
    return {
        "made": "\n".join(section(code, found[code]) for code in sorted(found)),
        "others": table(sorted(others)),
    }


def fill(page: str, contents: dict[str, str]) -> str:
    """Return the page with what stands between its markers replaced."""
    for name, text in contents.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, _, rest = page.partition(begin)
        after = rest.partition(end)[2]
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


def _unchanging(text: str) -> str:
    for changing, instead in _CHANGING:
        text = re.sub(changing, instead, text)
    return text


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), trio.run(parts)), encoding="utf-8")
