"""Throw-away certificates, in the places where kubeadm keeps them: ``<root>/etc/kubernetes/pki``."""

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Far from any real clock on both sides, so that no test ever depends on the day it runs.
NOT_BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2049, 1, 1, tzinfo=UTC)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Authority:
    """A certificate authority that signs leaves."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, name: str) -> "Authority":
        """Make a new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, key.public_key(), issuer=_name(name)).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            key_encipherment=False,
            content_commitment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        mark = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(usage, critical=True).add_extension(mark, critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    def write(self, stem: Path) -> None:
        """Write ``<stem>.crt`` and ``<stem>.key``."""
        write_pair(stem, self.certificate, self.key)

    def issue(
        self,
        stem: Path,
        name: str,
        *usages: x509.ObjectIdentifier,
        organization: str | None = None,
        sans: tuple[str, ...] = (),
    ) -> None:
        """Sign a leaf, and write ``<stem>.crt`` and ``<stem>.key``."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, key.public_key(), issuer=self.certificate.subject, organization=organization)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        mark = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(mark, critical=False)
        if sans:
            names = [_general_name(san) for san in sans]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        write_pair(stem, builder.sign(self.key, hashes.SHA256()), key)


def write_kubeadm_pki(
    root: Path, *, node: str = "cp-1", addresses: tuple[str, ...] = ("127.0.0.1", "localhost")
) -> Path:
    """Write every file of a kubeadm control plane's PKI below ``root``; return its ``pki`` directory."""
    pki = root / "etc/kubernetes/pki"
    cluster = Authority.make("kubernetes")
    cluster.write(pki / "ca")
    service_names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.96.0.1")
    cluster.issue(pki / "apiserver", "kube-apiserver", SERVER, sans=(node, *service_names, *addresses))
    cluster.issue(
        pki / "apiserver-kubelet-client", "kube-apiserver-kubelet-client", CLIENT, organization="system:masters"
    )
    front_proxy = Authority.make("front-proxy-ca")
    front_proxy.write(pki / "front-proxy-ca")
    front_proxy.issue(pki / "front-proxy-client", "front-proxy-client", CLIENT)
    write_etcd_pki(pki, node=node, addresses=addresses)
    signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(pki / "sa.key", signing.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()), 0o600)
    public = signing.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write(pki / "sa.pub", public, 0o600)
    return pki


def write_etcd_pki(
    pki: Path, *, node: str = "cp-1", addresses: tuple[str, ...] = ("127.0.0.1", "localhost")
) -> Authority:
    """Write what etcd and its clients need: ``etcd/{ca,server,peer,healthcheck-client}``, ``apiserver-etcd-client``."""
    authority = Authority.make("etcd-ca")
    authority.write(pki / "etcd/ca")
    authority.issue(pki / "etcd/server", node, SERVER, CLIENT, sans=(node, *addresses))
    authority.issue(pki / "etcd/peer", node, SERVER, CLIENT, sans=(node, *addresses))
    authority.issue(pki / "etcd/healthcheck-client", "kube-etcd-healthcheck-client", CLIENT)
    authority.issue(pki / "apiserver-etcd-client", "kube-apiserver-etcd-client", CLIENT)
    return authority


def write_pair(stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Write ``<stem>.crt`` (0644) and ``<stem>.key`` (0600), as kubeadm does."""
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    _write(stem.with_name(stem.name + ".crt"), certificate.public_bytes(Encoding.PEM), 0o644)
    _write(stem.with_name(stem.name + ".key"), secret, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)


def _builder(
    name: str, public_key: ec.EllipticCurvePublicKey, *, issuer: x509.Name, organization: str | None = None
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name, organization))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
    )


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
