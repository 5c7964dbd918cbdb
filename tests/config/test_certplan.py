"""From flags to the certificates to serve."""

from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest

from certs.acme.authority import GOOGLE, LETS_ENCRYPT, ExternalAccount
from certs.files import PairFiles
from certs.tasks.plan import OnDemand, Plan
from derp.config.certplan import SHORT_LIVED, make_plan
from derp.net.listenaddress import Address
from tests.support.config import make_config

CERTDIR = Path("/certs")
OWN = "https://ca.example/dir"


def plan(**changes: object) -> Plan:
    usual = {"dev": True, "a": Address("", 443), "certdir": "/certs", "hostname": "d.example"}
    return make_plan(make_config(**{**usual, **changes}))  # type: ignore[arg-type]


def on_demand(**changes: object) -> OnDemand:
    found = plan(acme_ip_certs=True, **changes).on_demand
    assert found is not None
    return found


def test_manual_is_two_files_in_the_directory() -> None:
    (certificate,) = plan(certmode="manual").certificates
    assert certificate.names == ("d.example",)
    assert certificate.files == PairFiles(CERTDIR / "d.example.crt", CERTDIR / "d.example.key")
    assert certificate.acme is None


def test_several_names_are_one_certificate() -> None:
    names = ("d.example", "e.example")
    (manual,) = plan(certmode="manual", hostname="d.example,e.example").certificates
    assert (manual.names, manual.files.key) == (names, CERTDIR / "d.example.key")
    (ordered,) = plan(hostname="d.example,e.example").certificates
    assert (ordered.names, ordered.files.certificate) == (names, CERTDIR / "d.example")
    own = {"certmode": "manual", "tls_cert": "/a", "tls_key": "/b"}
    assert plan(hostname="d.example,e.example", **own).certificates[0].names == names


def test_a_wildcard_has_files_that_are_not_hidden() -> None:
    (certificate,) = plan(certmode="manual", hostname="*.d.example").certificates
    assert certificate.files.certificate == CERTDIR / "_.d.example.crt"


def test_manual_is_the_operators_files() -> None:
    (certificate,) = plan(certmode="manual", tls_cert="/a", tls_key="/b", certdir="").certificates
    assert certificate.files == PairFiles(Path("/a"), Path("/b"), "-tls-cert")
    assert certificate.operator_managed


def test_by_default_one_file_from_lets_encrypt() -> None:
    found = plan()
    (certificate,) = found.certificates
    assert certificate.files == PairFiles(CERTDIR / "d.example", CERTDIR / "d.example")
    assert certificate.acme is not None
    assert certificate.acme.authority.directory == LETS_ENCRYPT
    assert certificate.acme.profile == ""
    assert found.on_demand is None


def test_google_and_its_account() -> None:
    (certificate,) = plan(
        certmode="gcp", acme_eab_kid="k", acme_eab_key=b"secret", acme_email="a@b"
    ).certificates
    assert certificate.acme is not None
    authority = certificate.acme.authority
    assert authority.directory == GOOGLE
    assert authority.email == "a@b"
    assert authority.external_account == ExternalAccount("k", b"secret")


def test_another_authority() -> None:
    (certificate,) = plan(acme_directory=OWN, acme_ca_bundle="/ca.pem").certificates
    assert certificate.acme is not None
    assert certificate.acme.authority.directory == OWN
    assert certificate.acme.authority.ca_bundle == Path("/ca.pem")


@pytest.mark.parametrize(
    ("port", "http_port", "challenges"),
    [
        (443, 80, ["tls-alpn-01", "http-01"]),
        (443, -1, ["tls-alpn-01"]),
        (8443, 80, ["http-01", "tls-alpn-01"]),
        (8443, -1, ["tls-alpn-01"]),
    ],
)
def test_the_challenge_that_is_likely_to_work_comes_first(
    port: int, http_port: int, challenges: list[str]
) -> None:
    (certificate,) = plan(a=Address("", port), http_port=http_port, acme_directory=OWN).certificates
    assert certificate.acme is not None
    assert certificate.acme.challenges == challenges


def test_names_are_validated_by_dns_and_addresses_as_before() -> None:
    found = plan(
        a=Address("", 8443),
        hostname="d.example,*.d.example",
        acme_dns="cloudflare",
        acme_ip_certs=True,
        acme_ip_addresses="8.8.8.8",
    )
    names, address = found.certificates
    assert names.files.certificate == CERTDIR / "d.example"
    assert names.acme is not None
    assert names.acme.challenges == ["dns-01"]
    assert names.acme.dns is not None
    assert names.acme.dns.provider == "cloudflare"
    assert address.acme is not None
    assert address.acme.challenges == ["http-01", "tls-alpn-01"]
    assert address.acme.dns is None
    assert found.on_demand is not None
    assert found.on_demand.acme.dns is None


def test_an_address_and_its_fellows_share_a_short_lived_certificate() -> None:
    found = plan(hostname="8.8.8.8", acme_ip_certs=True, acme_ip_addresses="2606:4700::1,8.8.8.8")
    (certificate,) = found.certificates
    assert certificate.names == ("8.8.8.8", "2606:4700::1")
    assert certificate.files.certificate == CERTDIR / "8.8.8.8"
    assert certificate.acme is not None
    assert certificate.acme.profile == SHORT_LIVED


def test_a_name_and_addresses_are_two_certificates() -> None:
    one, two = plan(acme_ip_certs=True, acme_ip_addresses="2606:4700::1").certificates
    assert (one.names, two.names) == (("d.example",), ("2606:4700::1",))
    assert two.files.certificate == CERTDIR / "2606.4700..1"
    assert one.acme is not None
    assert two.acme == attrs.evolve(one.acme, profile=SHORT_LIVED)


@pytest.mark.parametrize(
    ("changes", "address", "is_possible"),
    [
        ({}, "8.8.8.8", True),
        ({}, "2606:4700::1", True),
        ({}, "10.0.0.1", False),
        ({}, "127.0.0.1", False),
        ({"acme_ip_addresses": "8.8.8.8"}, "8.8.8.8", False),
        ({"acme_ip_addresses": "8.8.8.8"}, "1.1.1.1", True),
        ({"acme_ip_addresses": "8.8.8.8"}, "10.0.0.1", False),
        ({"acme_directory": OWN}, "10.0.0.1", True),
        ({"acme_directory": OWN, "acme_ip_addresses": "10.0.0.2"}, "10.0.0.1", False),
    ],
)
def test_which_addresses_get_a_certificate_on_demand(
    changes: dict[str, object], address: str, is_possible: bool
) -> None:
    certificate = on_demand(**changes).certificate(ip_address(address))
    assert (certificate is not None) == is_possible
    if certificate is not None:
        assert certificate.names == (address,)
        assert certificate.acme is not None
        assert certificate.acme.profile == SHORT_LIVED
