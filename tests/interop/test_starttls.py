"""STARTTLS with programs of others: aiosmtpd, curl, the openssl command and smtplib."""

from __future__ import annotations

import contextlib
import runpy
import smtplib
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from peers import (
    PATIENCE,
    OurServer,
    echo,
    in_both_versions,
    localhost,
    only,
    our_client,
    our_context,
    running,
    standard_context,
)

import trio_tlsnode as tls
from trio_tlsnode.testing import default_authority

pytestmark = [pytest.mark.interop, pytest.mark.feature("G8")]

EXAMPLE: dict[str, Any] = runpy.run_path(
    str(Path(__file__).parent.parent.parent / "examples" / "starttls_smtp.py")
)
MAIL = "Subject: hello\n\n.Over TLS.\n"
