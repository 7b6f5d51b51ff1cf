"""Node.js and we see the same in a certificate, and judge names alike."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import random
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from trio_tlsnode.certificates import _ACCESS_METHODS, _ATTRIBUTES, Certificate, Name
from trio_tlsnode.identity import _judge

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

# Prints a JSON list: the certificate object of each certificate of a JSON list of PEM texts.
READ_CERTIFICATES = """
const { X509Certificate } = require('crypto');
const pems = JSON.parse(require('fs').readFileSync(0));
console.log(JSON.stringify(pems.map((pem) => new X509Certificate(pem).toLegacyObject())));
"""

# A server and a client in one process.  Prints what the client's getPeerCertificate(true) holds, from the
# leaf on; "itself" stands for an issuerCertificate that is the object which has it.
PEER_CERTIFICATE = """
const tls = require('tls');
const { key, cert, ca } = JSON.parse(require('fs').readFileSync(0));
const server = tls.createServer({ key, cert }, (socket) => socket.end());
server.listen(0, '127.0.0.1', () => {
  const socket = tls.connect({ port: server.address().port, host: '127.0.0.1', ca, servername: 'leaf.example' });
  socket.on('error', (error) => { console.error(error); process.exit(1); });
  socket.on('secureConnect', () => {
    const chain = [];
    for (let seen = socket.getPeerCertificate(true); seen; ) {
      const { issuerCertificate, ...fields } = seen;
      chain.push(fields);
      fields.issuerIsItself = issuerCertificate === seen;
      seen = fields.issuerIsItself ? undefined : issuerCertificate;
    }
    console.log(JSON.stringify(chain));
    socket.end();
    server.close();
  });
});
"""

# Prints for each [host, subject, subjectaltname] what tls.checkServerIdentity says: null, or code and reason.
CHECK_IDENTITIES = """
const tls = require('tls');
const rows = JSON.parse(require('fs').readFileSync(0));
const judge = (host, subject, subjectaltname) => {
  try {
    const error = tls.checkServerIdentity(host, { subject, subjectaltname });
    return error ? [error.code, error.reason] : null;
  } catch (error) {
    return [error.code, error.message];
  }
};
console.log(JSON.stringify(rows.map((row) => judge(...row))));
"""


def run(node: str, script: str, value: object) -> Any:
    result = subprocess.run(
        [node, "-e", script], input=json.dumps(value), capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def from_json(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a certificate object that went through JSON with its buffers as bytes."""
    return {
        name: bytes(value["data"]) if isinstance(value, dict) and value.get("type") == "Buffer" else value
        for name, value in fields.items()
    }
