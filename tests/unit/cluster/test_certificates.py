"""Certificates of the cluster."""

import ipaddress
import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from assistant_cluster.certificates import Authority, service_account_keys


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_client_certificate_names_user_and_group_and_is_signed_by_the_authority(tmp_path: Path) -> None:
    """The API server takes the user from CN and the group from O."""
    authority = Authority(tmp_path)
    certificate = load(authority.client("system:node:one", "system:nodes").certificate)
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:one"
    assert certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate.verify_directly_issued_by(load(authority.files.certificate))


def test_a_server_certificate_holds_every_name_and_address(tmp_path: Path) -> None:
    """Names become DNS names, addresses IP addresses."""
    pair = Authority(tmp_path).server("api", ["kubernetes.default", "198.18.255.1"])
    names = load(pair.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kubernetes.default"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("198.18.255.1")]


def test_certificates_are_made_once_and_survive_a_new_start(tmp_path: Path) -> None:
    """A second run finds authority and certificates, so that running programs go on trusting each other."""
    first = Authority(tmp_path).client("admin").certificate.read_bytes()
    assert Authority(tmp_path).client("admin").certificate.read_bytes() == first
    signer = service_account_keys(tmp_path).key.read_bytes()
    assert service_account_keys(tmp_path).key.read_bytes() == signer


def test_a_certificate_without_its_key_is_made_again(tmp_path: Path) -> None:
    """A run that was killed between two files leaves nothing unusable."""
    pair = Authority(tmp_path).client("admin")
    pair.key.unlink()
    again = Authority(tmp_path).client("admin")
    key = serialization.load_pem_private_key(again.key.read_bytes(), password=None)
    assert load(again.certificate).public_key() == key.public_key()


def test_private_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """Files have mode 0600, their folder 0700."""
    folder = tmp_path / "pki"
    Authority(folder).client("admin")
    service_account_keys(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    keys = list(folder.glob("*.key"))
    assert len(keys) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}


def test_service_account_tokens_are_signed_with_rsa(tmp_path: Path) -> None:
    """The public file is the private key's, and RS256 is what every JWT library can verify."""
    pair = service_account_keys(tmp_path)
    key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert serialization.load_pem_public_key(pair.certificate.read_bytes()) == key.public_key()
