import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.wire.gojson import JSONFormError, read_fields, read_pairs

NAMES = ("Alpha", "BetaBytes")


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (b"{}", {}),
        (b"null", {}),
        (b' {"Alpha": 1}\r\n\t', {"Alpha": 1}),
        (b'{"alpha": 1, "BETABYTES": "x"}', {"Alpha": 1, "BetaBytes": "x"}),
        ('{"betaByte\u017f": 1}'.encode(), {"BetaBytes": 1}),
        (b'{"\\u0041lpha": 1}', {"Alpha": 1}),
        (b'{"Alpha": 1, "alpha": 2}', {"Alpha": 2}),
        (b'{"alpha": 1, "Alpha": null}', {"Alpha": 1}),
        (b'{"Alpha": null}', {}),
        (b'{"Gamma": {"Alpha": 1}, "Delta": [1, 2.5, {}]}', {}),
        (b'{"Alpha": true, "BetaBytes": 1e3}', {"Alpha": True, "BetaBytes": 1000.0}),
        (b'{"Gamma": "\xff", "Alpha": 1}', {"Alpha": 1}),
    ],
)
def test_fields(data: bytes, fields: dict[str, object]):
    assert read_fields(data, NAMES) == fields


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"s3cret", "not JSON (line 1, column 1)"),
        (b'{"Alpha":\n s3cret}', "not JSON (line 2, column 2)"),
        (b'{"Alpha": 1', "not JSON (line 1, column 12)"),
        (b'{"Alpha": 1} s3cret', "not JSON (line 1, column 14)"),
        (b'{"Alpha": 1,}', "not JSON (line 1, column 13)"),
        (b'\xef\xbb\xbf{"Alpha": 1}', "not JSON (line 1, column 1)"),
        ('{"Alpha": 1}'.encode("utf-16"), "not JSON (line 1, column 1)"),
        (b'{"Alpha": "a\nb"}', "not JSON (line 1, column 13)"),
        (b'{"Alpha": NaN}', "not JSON that Go would read, or nested too deep"),
        (b'{"Alpha": -Infinity}', "not JSON that Go would read, or nested too deep"),
        (b'{"Alpha": ' + b"1" * 5000 + b"}", "not JSON that Go would read, or nested too deep"),
        (b"[" * 200_000, "not JSON that Go would read, or nested too deep"),
        (b"[]", "not a JSON object"),
        (b'[["Alpha", 1]]', "not a JSON object"),
        (b'"s3cret"', "not a JSON object"),
        (b"1", "not a JSON object"),
        (b"false", "not a JSON object"),
    ],
)
def test_no_object(data: bytes, message: str):
    with pytest.raises(JSONFormError) as caught:
        read_fields(data, NAMES)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(message.partition(", column")[0])


def test_pairs_are_all_that_the_text_has_in_its_order():
    data = b'{"alpha": 1, "Gamma": 2, "BETABYTES": null, "Alpha": null}'
    assert read_pairs(data, NAMES) == [("Alpha", 1), ("BetaBytes", None), ("Alpha", None)]


def test_the_first_value_may_have_more_behind_it():
    for data in (b'\n {"Alpha": 1}{"Alpha": 2}', b'{"Alpha": 1} x', b'{"Alpha": 1}'):
        assert read_pairs(data, NAMES, first=True) == [("Alpha", 1)]
    with pytest.raises(JSONFormError, match=r"^not JSON"):
        read_pairs(b'x {"Alpha": 1}', NAMES, first=True)


@given(st.binary())
def test_any_bytes(data: bytes):
    try:
        fields = read_fields(data, NAMES)
    except JSONFormError:
        return
    assert set(fields) <= set(NAMES)
