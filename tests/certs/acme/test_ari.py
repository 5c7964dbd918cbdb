from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from certs.acme.ari import RenewalInfo, certificate_id, parse_renewal_info

KEY = ec.generate_private_key(ec.SECP256R1())
NOT_UNDERSTOOD = (ValueError, TypeError, LookupError)


def leaf(serial, key_identifier):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay.example")])
    builder = (
        x509.CertificateBuilder(name, name, KEY.public_key(), serial)
        .not_valid_before(datetime(2030, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2030, 4, 1, tzinfo=UTC))
    )
    if key_identifier is not None:
        authority = x509.AuthorityKeyIdentifier(key_identifier or None, None, None)
        builder = builder.add_extension(authority, critical=False)
    return builder.sign(KEY, SHA256()).public_bytes(Encoding.DER)


def test_the_example_of_rfc_9773():
    key_identifier = bytes.fromhex("69885b6b87464041e1b37b847ba0ae2cde01c8d4")
    assert certificate_id(leaf(0x87654321, key_identifier)) == (
        "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
    )


@pytest.mark.parametrize(
    ("serial", "encoded"), [(1, "AQ"), (0x7F, "fw"), (0x80, "AIA"), (0xFFFF, "AP__")]
)
def test_serial_numbers_are_as_in_der(serial, encoded):
    assert certificate_id(leaf(serial, b"k")) == f"aw.{encoded}"


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
@pytest.mark.filterwarnings("ignore:Parsed a negative serial number")
@pytest.mark.parametrize(("serial", "name"), [(0, "aw.AA"), (0x80, None), (0xFF, None)])
def test_serial_numbers_that_no_authority_should_give(serial, name):
    """RFC 5280, 4.1.2.2: zero and negative ones are to be put up with."""
    der = leaf(0x5A, b"k").replace(b"\x02\x01\x5a", bytes((2, 1, serial)), 1)
    assert certificate_id(der) == name


def test_no_name_without_the_key_of_the_authority():
    assert certificate_id(leaf(1, None)) is None


def answer(start="2030-03-01T00:00:00Z", end="2030-03-02T00:00:00Z", **more):
    return {"suggestedWindow": {"start": start, "end": end}, **more}


def test_a_window():
    assert parse_renewal_info(answer(explanationURL="https://ca.example/why"), 7200.0) == (
        RenewalInfo((datetime(2030, 3, 1, tzinfo=UTC), datetime(2030, 3, 2, tzinfo=UTC)), 7200.0)
    )


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [(None, 21600), (0.0, 60), (59.0, 60), (3600.0, 3600), (86401.0, 86400), (1e300, 86400)],
)
def test_when_to_ask_again(retry_after, expected):
    assert parse_renewal_info(answer(), retry_after).ask_again_in == expected


def test_other_spellings_of_a_time():
    info = parse_renewal_info(answer("2030-03-01T01:00:00.123456789+01:00"), None)
    assert info.window[0] == datetime(2030, 3, 1, 1, 0, 0, 123456, timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    "nonsense",
    [
        {},
        [],
        None,
        5,
        "window",
        {"suggestedWindow": None},
        {"suggestedWindow": {"start": "2030-03-01T00:00:00Z"}},
        answer(start=5),
        answer(start="soon"),
        answer(start="2030-03-01T00:00:00"),
        answer(start="2030-03-03T00:00:00Z"),
    ],
)
def test_malformed_answers(nonsense):
    with pytest.raises(NOT_UNDERSTOOD):
        parse_renewal_info(nonsense, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON | st.builds(answer, JSON, JSON) | st.builds(dict, suggestedWindow=JSON))
def test_any_json_is_a_window_or_not_understood(value):
    try:
        info = parse_renewal_info(value, None)
    except NOT_UNDERSTOOD:
        return
    assert info.window[0] <= info.window[1]
