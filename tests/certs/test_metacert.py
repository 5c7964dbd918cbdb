import ssl
import warnings
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from certs.metacert import CLOCK_SKEW, LIFETIME, make_metacert

PUBLIC_KEY = bytes.fromhex("07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c")
NOW = datetime(2026, 11, 23, 7, 44, 52, tzinfo=UTC)

# What a Go derper (tailscale.com v1.102.5) with this public key sends.
GO_METACERT = bytes.fromhex(
    "3082016330820115a003020102020102300506032b657030523150304e06035504031347646572706b65"
    "793037613337636263313432303933633862373535646331623130653836636234323633373461643136"
    "6161383533656430626466633062326238366431633763301e170d3236313032343037343435325a170d"
    "3236313232333037343435325a30523150304e06035504031347646572706b6579303761333763626331"
    "343230393363386237353564633162313065383663623432363337346164313661613835336564306264"
    "66633062326238366431633763302a300506032b65700321003d3804227c4c5591e861da87fbf7a7d812"
    "07b28ff9bd96e25ef8a35df0dee4ffa310300e300c0603551d130101ff04023000300506032b65700341"
    "00beb200ad462b3b64c69f4aa037cf5d7ab939f954273a913be733584a48d85b9d1af094aa1f123796c1"
    "23737894c70b9dab9762c33c3eaa2007601808dc963c06"
)


def test_all_but_dates_key_and_signature_is_what_go_sends():
    ours = make_metacert(PUBLIC_KEY, NOW)
    assert len(ours) == len(GO_METACERT)
    validity, key, signature = slice(109, 139), slice(235, 267), slice(295, 359)
    blank = bytearray(GO_METACERT)
    for part in (validity, key, signature):
        blank[part] = ours[part]
    assert blank.hex() == ours.hex()


def test_a_parser_reads_back_what_a_client_looks_for():
    certificate = x509.load_der_x509_certificate(make_metacert(PUBLIC_KEY, NOW))
    with warnings.catch_warnings():
        # Newer releases of cryptography warn of common names beyond 64 characters.
        warnings.simplefilter("ignore", UserWarning)
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == "derpkey" + PUBLIC_KEY.hex()
    assert certificate.serial_number == 2
    (extension,) = certificate.extensions
    assert extension.critical
    assert extension.value == x509.BasicConstraints(ca=False, path_length=None)


def test_it_is_signed_by_itself():
    certificate = x509.load_der_x509_certificate(make_metacert(PUBLIC_KEY, NOW))
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize(
    "now",
    [
        NOW,
        NOW.astimezone(timezone(timedelta(hours=5))),
        datetime(2039, 12, 31, tzinfo=UTC),  # ends in 2049: two digits for the year
        datetime(2045, 6, 1, tzinfo=UTC),  # ends beyond: four
        datetime(2051, 6, 1, tzinfo=UTC),
    ],
)
def test_dates(now):
    certificate = x509.load_der_x509_certificate(make_metacert(PUBLIC_KEY, now))
    assert certificate.not_valid_before_utc == now - CLOCK_SKEW
    assert certificate.not_valid_after_utc == now + LIFETIME


def test_openssl_reads_it():
    pem = ssl.DER_cert_to_PEM_cert(make_metacert(PUBLIC_KEY, NOW))
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)


def test_each_has_a_signing_key_of_its_own():
    assert make_metacert(PUBLIC_KEY, NOW) != make_metacert(PUBLIC_KEY, NOW)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match=f"32 bytes, not {length}"):
        make_metacert(bytes(length), NOW)
