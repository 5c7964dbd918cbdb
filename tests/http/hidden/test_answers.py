"""nginx's answers; tests/field/test_hidden.py compares with the real one."""

import pytest

from derp.http.hidden.answers import answer, page

DATE = "Tue, 01 Dec 2026 07:46:39 GMT"
NOT_FOUND = (
    b"<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n"
    b"<center><h1>404 Not Found</h1></center>\r\n"
    b"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
HEAD = (
    b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\nDate: Tue, 01 Dec 2026 07:46:39 GMT\r\n"
    b"Content-Type: text/html\r\nContent-Length: 146\r\nConnection: keep-alive\r\n\r\n"
)


def test_the_answer() -> None:
    assert answer(404, DATE, keeps_alive=True) == HEAD + NOT_FOUND
    assert answer(404, DATE) == HEAD.replace(b"keep-alive", b"close") + NOT_FOUND


def test_head_has_no_page_and_http_09_has_nothing_else() -> None:
    assert answer(404, DATE, method=b"HEAD", keeps_alive=True) == HEAD
    assert answer(404, DATE, version=9, padded=True) == NOT_FOUND


def test_padding() -> None:
    padded = answer(404, DATE, padded=True)
    assert b"Content-Length: 548\r\n" in padded
    assert padded.endswith(b"</html>\r\n" + padded[-67:] * 6)
    assert page(404, padded=True).count(b"padding to disable") == 6


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, b"HTTP/1.1 400 Bad Request\r\n"),
        (405, b"HTTP/1.1 405 Not Allowed\r\n"),
        (413, b"HTTP/1.1 413 Request Entity Too Large\r\n"),
        (414, b"HTTP/1.1 414 Request-URI Too Large\r\n"),
        (494, b"HTTP/1.1 400 Bad Request\r\n"),
        (497, b"HTTP/1.1 400 Bad Request\r\n"),
        (501, b"HTTP/1.1 501 Not Implemented\r\n"),
        (505, b"HTTP/1.1 505 HTTP Version Not Supported\r\n"),
    ],
)
def test_each_status_has_its_line_and_its_length(status: int, told: bytes) -> None:
    found = answer(status, DATE)
    head, _, body = found.partition(b"\r\n\r\n")
    assert found.startswith(told)
    assert f"Content-Length: {len(body)}".encode() in head
    assert body == page(status)
