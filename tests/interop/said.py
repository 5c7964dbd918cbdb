"""What an admission server and tailscaled's LocalAPI may say, right, wrong and never-ending."""

import gzip
import json
from collections.abc import Mapping

from tests.interop.oracle import ALLOW, KNOWN, PERSON, REFUSE, UNKNOWN, reply
from tests.interop.oracle_process import Steps

CLOSE: tuple[str] = ("close",)
FOREVER = 60
"""Seconds, or so many of anything: longer than anybody waits."""


def head(*headers: str, status: str = "200 OK") -> tuple[str, str]:
    """The step that sends the head of a response."""
    return ("send", "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]))


def leads(location: str, status: str = "302 Found") -> Steps:
    return [reply("", status, f"Location: {location}")]


def zipped(body: bytes) -> Steps:
    return [reply(gzip.compress(body), "200 OK", "Content-Encoding: gzip")]


YES, NO = '{"Allow":true}', '{"Allow":false}'

BY_URL: Mapping[str, Steps] = {
    "yes": ALLOW,
    "no": REFUSE,
    # What counts as yes.
    "yes in small letters": [reply('{"allow":true}')],
    "yes in capitals": [reply('{"ALLOW":true}')],
    "yes, and more": [reply('{"Rate":{"bps":[1,2]},"Allow":true,"Note":"x"}')],
    "no, then yes": [reply('{"Allow":false,"Allow":true}')],
    "yes, then no": [reply('{"Allow":true,"Allow":false}')],
    "yes, then null": [reply('{"Allow":true,"allow":null}')],
    "yes, then rubbish": [reply(YES + "rubbish")],
    "rubbish, then yes": [reply("rubbish" + YES)],
    "space, then yes": [reply(" \r\n\t" + YES)],
    "a mark, then yes": [reply(("\ufeff" + YES).encode())],
    "yes in a string": [reply('{"Allow":"true"}')],
    "1": [reply('{"Allow":1}')],
    "null": [reply('{"Allow":null}')],
    "nothing about it": [reply("{}")],
    "a list": [reply(f"[{YES}]")],
    "true": [reply("true")],
    "only null": [reply("null")],
    "half of it": [reply('{"Allow":tr')],
    "no body": [reply("")],
    "one single quote": [reply("{'Allow':true}")],
    "NaN beside it": [reply('{"x":NaN,"Allow":true}')],
    "bytes that are no text": [reply(b'{"x":"\xff\xfe","Allow":true}')],
    "deep": [reply('{"x":' + "[" * 1500 + "]" * 1500 + ',"Allow":true}')],
    # How much of it is read.
    "4096 bytes": [reply(YES.rjust(4096))],
    "4097 bytes": [reply(YES.rjust(4097))],
    "10 MB of spaces": [head("Content-Length: 10000014"), ("flood", " " * 10_000, 1000)],
    "yes, then 10 MB": [head("Content-Length: 10000014"), ("send", YES), ("flood", "x" * 100, 99)],
    "spaces without end": [head(), ("flood", " " * 1000, 1_000_000)],
    "yes, and never an end": [head("Content-Length: 99"), ("send", YES), ("wait", FOREVER)],
    "a letter at a time": [
        head("Content-Length: 14"),
        *(step for letter in YES for step in (("send", letter), ("wait", 0.02))),
    ],
    "zipped": zipped(YES.encode()),
    "zipped spaces": zipped(b" " * 10_000_000),
    "zipped no more than half": [
        reply(gzip.compress(YES.encode())[:12], "200 OK", "Content-Encoding: gzip"),
    ],
    "in pieces": [
        head("Transfer-Encoding: chunked"),
        ("send", '5\r\n{"All\r\n9\r\now":true}\r\n0\r\n\r\n'),
    ],
    "in pieces that are broken": [
        head("Transfer-Encoding: chunked"),
        ("send", 'zz\r\n{"Allow":true}\r\n0\r\n\r\n'),
        CLOSE,
    ],
    "cut off": [head("Content-Length: 14"), ("send", '{"Allow":'), CLOSE],
    "cut off behind it": [head("Content-Length: 20"), ("send", YES), CLOSE],
    "until the end": [head("Connection: close"), ("send", YES), CLOSE],
    "HTTP/1.0": [("send", f"HTTP/1.0 200 OK\r\n\r\n{YES}"), CLOSE],
    # Other answers.
    "500": [reply("", "500 Internal Server Error")],
    "500 and yes": [reply(YES, "500 Internal Server Error")],
    "503": [reply("", "503 Service Unavailable", "Retry-After: 1")],
    "404": [reply("", "404 Not Found")],
    "401": [reply("", "401 Unauthorized", "WWW-Authenticate: Basic")],
    "201 and yes": [reply(YES, "201 Created")],
    "204": [head(status="204 No Content")],
    "206 and yes": [reply(YES, "206 Partial Content")],
    "304": [head(status="304 Not Modified")],
    "999 and yes": [reply(YES, "999 Enough")],
    "a hint, then yes": [head("Link: </x>", status="103 Early Hints"), *ALLOW],
    "wait, then yes": [head(status="100 Continue"), *ALLOW],
    # Elsewhere.
    **{
        f"{status} to {what}": leads(f"/{what}", status)
        for what in ("yes", "no")
        for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent")
    },
    "300 to yes": leads("/yes", "300 Multiple Choices"),
    "305 to yes": leads("/yes", "305 Use Proxy"),
    "302 to nowhere": [reply("", "302 Found")],
    "307 to nowhere": [reply("", "307 Temporary Redirect")],
    "302 to itself": leads("/loop"),
    "10 times elsewhere": leads("/hops/9"),
    "9 times elsewhere": leads("/hops/8"),
    "302 to a closed port": leads("http://127.0.0.1:1/yes"),
    "302 to another scheme": leads("ftp://127.0.0.1/yes"),
    "302 to rubbish": leads("http://[::1/yes"),
    "302 to a path without a slash": leads("yes"),
    # Not an answer.
    "closes": [CLOSE],
    "closes in the head": [("send", "HTTP/1.1 200 OK\r\nContent-Le"), CLOSE],
    "another protocol": [("send", "SSH-2.0-OpenSSH_9.6\r\n\r\n"), CLOSE],
    "no status": [("send", "HTTP/1.1 OK\r\n\r\n"), CLOSE],
    "two lengths": [head("Content-Length: 14", "Content-Length: 13"), ("send", YES), CLOSE],
    "no length": [head("Content-Length: many"), ("send", YES), CLOSE],
    "a header without a colon": [head("Nonsense"), ("send", YES), CLOSE],
    "20 KB of headers": [reply(YES, "200 OK", *[f"X-{n}: {'x' * 90}" for n in range(200)])],
    "a header without end": [("send", "HTTP/1.1 200 OK\r\nX: "), ("flood", "x" * 1000, 20_000)],
    "hints without end": [("flood", "HTTP/1.1 103 Early Hints\r\n\r\n", 1_000_000)],
    # These take until the deadline.
    "nothing": [("wait", FOREVER)],
    "half a head": [("send", "HTTP/1.1 200 OK\r\nX:"), ("wait", FOREVER)],
    "a head": [head("Content-Length: 14"), ("wait", FOREVER)],
    "half a body": [head("Content-Length: 14"), ("send", '{"Allow"'), ("wait", FOREVER)],
    "a letter a second": [
        head("Content-Length: 99"),
        *(step for letter in YES for step in (("send", letter), ("wait", 1))),
    ],
}

ELSEWHERE: Mapping[str, Steps] = {
    "/yes": ALLOW,
    "/no": REFUSE,
    "/loop": leads("/loop"),
    "/hops/0": ALLOW,
    **{f"/hops/{n}": leads(f"/hops/{n - 1}") for n in range(1, 10)},
}

BY_TAILSCALED: Mapping[str, Steps] = {
    "known": KNOWN,
    "unknown": UNKNOWN,
    "closes": [CLOSE],
    "500": [reply("", "500 Internal Server Error")],
    "403": [reply("whois access denied\n", "403 Forbidden")],
    "known, with 500": [reply(json.dumps(PERSON), "500 Internal Server Error")],
    "another 400": [reply("invalid nodekey in 'addr' parameter\n", "400 Bad Request")],
    "rubbish": [reply("rubbish")],
    "no body": [reply("")],
    "a list": [reply("[]")],
    "half of it": [reply('{"Node":')],
    "cut off": [head("Content-Length: 999"), ("send", '{"Node":'), CLOSE],
    "another protocol": [("send", "SSH-2.0-OpenSSH_9.6\r\n\r\n"), CLOSE],
    "null": [reply("null")],
    "a large person": [reply(json.dumps({**PERSON, "CapMap": {"x": ["y" * 50_000]}}))],
    "a very large person": [reply(json.dumps({**PERSON, "CapMap": {"x": ["y" * 200_000]}}))],
    "half a head": [("send", "HTTP/1.1 200 OK\r\nX:"), ("wait", FOREVER)],
    "too old to know": [reply("invalid 'addr' parameter\n", "400 Bad Request")],
}
