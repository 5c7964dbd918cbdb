import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import DerperError, ReloadError, StartError
from derp.files import ratelimit
from derp.files.ratelimit import NO_LIMIT, RateConfig

RATE = "PerClientRateLimitBytesPerSec"
BURST = "PerClientRateBurstBytes"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", NO_LIMIT),
        ("null", NO_LIMIT),
        (f'{{"{RATE}": 0, "{BURST}": 0}}', NO_LIMIT),
        (f'{{"{BURST}": 1000000}}', NO_LIMIT),
        (f'{{"{RATE}": 0, "{BURST}": 1000000}}', NO_LIMIT),
        (f'{{"{RATE}": null}}', NO_LIMIT),
        (f'{{"{RATE}": 1, "{BURST}": 2}}', RateConfig(1, 65568)),
        (f'{{"{RATE}": 1}}', RateConfig(1, 65568)),
        (f'{{"{RATE}": 125000, "{BURST}": 65569}}', RateConfig(125000, 65569)),
        (f'{{"{RATE.lower()}": 5, "{BURST.upper()}": 100000}}', RateConfig(5, 100000)),
        (f'{{"{RATE}": 5, "comment": "kept"}}', RateConfig(5, 65568)),
        (f'{{"{RATE}": {2**64 - 1}, "{BURST}": {2**64 - 1}}}', RateConfig(2**64 - 1, 2**64 - 1)),
    ],
)
def test_parse(text: str, expected: RateConfig):
    assert ratelimit.parse(text.encode()) == expected


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_parse_any_numbers(rate: int, burst: int):
    config = ratelimit.parse(json.dumps({RATE: rate, BURST: burst}).encode())
    assert config.bytes_per_second == rate
    assert config.burst == (max(burst, 65568) if rate else 0)


WANT = f'; want {{"{RATE}": 125000, "{BURST}": 1000000}}'
NOT_WHOLE = " is not a whole number of bytes"


@pytest.mark.parametrize("failure", [StartError, ReloadError])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n", "empty"),
        ("not json", "not JSON (line 1, column 1)"),
        ("[]", "not a JSON object"),
        (f'{{"{RATE}": -1}}', RATE + NOT_WHOLE),
        (f'{{"{RATE}": 1.5}}', RATE + NOT_WHOLE),
        (f'{{"{RATE}": 1.0}}', RATE + NOT_WHOLE),
        (f'{{"{RATE}": 1e3}}', RATE + NOT_WHOLE),
        (f'{{"{RATE}": "1000"}}', RATE + NOT_WHOLE),
        (f'{{"{RATE}": true}}', RATE + NOT_WHOLE),
        (f'{{"{RATE}": [1]}}', RATE + NOT_WHOLE),
        (f'{{"{RATE}": {2**64}}}', RATE + NOT_WHOLE),
        (f'{{"{RATE.lower()}": -1}}', RATE + NOT_WHOLE),
        (f'{{"{BURST}": -1}}', BURST + NOT_WHOLE),
    ],
)
def test_bad_content(tmp_path: Path, text: str, message: str, failure: type[DerperError]):
    path = tmp_path / "rate.json"
    path.write_text(text)
    with pytest.raises(DerperError) as caught:
        ratelimit.load(path, failure)
    assert type(caught.value) is failure
    assert str(caught.value) == f"-rate-config {str(path)!r}: {message}{WANT}"


def test_bad_files(tmp_path: Path):
    missing = tmp_path / "no\nsuch"
    with pytest.raises(StartError) as caught:
        ratelimit.load(missing)
    assert str(caught.value) == f"-rate-config {str(missing)!r}: No such file or directory"
    assert "\n" not in str(caught.value)
    with pytest.raises(ReloadError, match=r"Is a directory$"):
        ratelimit.load(tmp_path, ReloadError)


def test_load_reads_the_file_again(tmp_path: Path):
    path = tmp_path / "rate.json"
    path.write_text(f'{{"{RATE}": 1000}}')
    assert ratelimit.load(path) == RateConfig(1000, 65568)
    path.write_text("{}")
    assert ratelimit.load(path, ReloadError) == NO_LIMIT
