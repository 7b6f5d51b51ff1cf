"""CA stores: the lists of trusted certificates that come from outside a program.

Mozilla's list comes with certifi.  The system's is what the operating system's administrator trusts.  The
extra one is named by the environment, in the variable that Node.js reads for it.  What a context trusts by
default is Mozilla's list and the extra one, or what `trio_tlsnode.defaults.ca` says.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from ._openssl.ssl_ctx import can_read
from .credentials import TrustedOption, load_trusted_certificates
from .errors import ConfigurationError, ConfigurationTypeError

EXTRA_CA_VARIABLE: Final = "NODE_EXTRA_CA_CERTS"
"""The environment variable that names a PEM file of further trusted certificates.

It is read once, when the first context is made that trusts by default; and not at all in a setuid program.
"""

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

StoreName = Literal["bundled", "system", "extra"]


@functools.cache
def root_certificates() -> tuple[str, ...]:
    """Return Mozilla's root certificates as PEM, without newlines at their ends (``tls.rootCertificates``).

    It is the same tuple at each call.
    """
    return tuple(pem.removesuffix("\n") for pem in pems(store("bundled")))


@functools.cache
def store(name: StoreName) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a list, read once in a process."""
    if name == "bundled":
        # It brings much along, and who has CAs of their own need not load it.
        import certifi

        return _tolerantly(Path(certifi.where()))
    return _system() if name == "system" else _extra()


def parse(ca: TrustedOption) -> tuple[x509.Certificate, ...] | None:
    """Return the certificates that a ``ca`` option names, or None where it is not set.

    Args:
        ca: As `load_trusted_certificates` takes it, or "system", also as an item of a list.

    Raises:
        ConfigurationError: something cannot be used.
    """
    if _is_system(ca):
        return store("system")
    if isinstance(ca, (list, tuple)) and any(map(_is_system, ca)):
        others = _load([item for item in ca if not _is_system(item)])
        return tuple(dict.fromkeys((*store("system"), *(others or ()))))
    return _load(ca)


def _is_system(item: object) -> bool:
    return isinstance(item, str) and item == "system"


def _load(ca: TrustedOption) -> tuple[x509.Certificate, ...] | None:
    with _without_deprecations():
        return load_trusted_certificates(ca)


@contextlib.contextmanager
def _without_deprecations() -> Iterator[None]:
    """Say nothing of serial numbers that RFC 5280 does not allow: some of Mozilla's roots have such."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        yield


@functools.cache
def default() -> tuple[x509.Certificate, ...]:
    """Return what is trusted where nobody says otherwise: Mozilla's list and the extra one."""
    return tuple(dict.fromkeys((*store("bundled"), *store("extra"))))


def ca_certificates(name: str) -> tuple[str, ...]:
    """Return a list that comes from outside as PEM.

    Raises:
        ConfigurationError: there is no such list.
    """
    if not isinstance(name, str):
        raise ConfigurationTypeError(
            f'The "type" argument must be of type string. Received {name!r}', option="type"
        )
    if name == "bundled":
        return root_certificates()
    if name in ("system", "extra"):
        return pems(store(name))
    raise ConfigurationError(
        f"{name!r} is no list of certificates; there are default, bundled, system and extra", option="type"
    )


@functools.lru_cache(8)
def pems(certificates: tuple[x509.Certificate, ...]) -> tuple[str, ...]:
    """Return certificates as PEM, each with a newline at its end; the same tuple for the same ones."""
    return tuple(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def _system() -> tuple[x509.Certificate, ...]:
    paths = ssl.get_default_verify_paths()
    files = []
    if paths.cafile:
        files = [Path(paths.cafile)]
    elif paths.capath:
        found = sorted(Path(paths.capath).iterdir())
        files = [file for file in found if file.is_file() and os.access(file, os.R_OK)]
    if certificates := _tolerantly(*files):
        return certificates
    # Windows keeps its lists where only the standard library reaches them.
    ders = ssl.create_default_context().get_ca_certs(binary_form=True)
    return tuple(x509.load_der_x509_certificate(der) for der in ders)


def _tolerantly(*paths: Path) -> tuple[x509.Certificate, ...]:
    """Load lists that others maintain: one certificate that cannot be read must not cost all others."""
    found = []
    with _without_deprecations():
        # In a folder, most are there under several names.
        for pem in dict.fromkeys(pem for path in paths for pem in _PEM.findall(path.read_bytes())):
            with contextlib.suppress(ValueError):
                found.append(x509.load_pem_x509_certificate(pem))
    return tuple(filter(can_read, dict.fromkeys(found)))


def _has_borrowed_rights() -> bool:
    """Whether who started us has other rights than we have, so that the environment is not to be believed."""
    return hasattr(os, "geteuid") and (os.geteuid(), os.getegid()) != (os.getuid(), os.getgid())


def _extra() -> tuple[x509.Certificate, ...]:
    path = os.environ.get(EXTRA_CA_VARIABLE)
    if not path or _has_borrowed_rights():
        return ()
    try:
        found = _tolerantly(Path(path))
    except OSError as error:
        reason: object = error
    else:
        if found:
            return found
        reason = "it holds no certificate"
    warnings.warn(f"Ignoring extra certs from {path!r}, load failed: {reason}", RuntimeWarning, stacklevel=2)
    return ()
