"""nginx's answers, byte for byte but for the time. Sans-I/O.

After ngx_http_send_special_response (ngx_http_special_response.c) and ngx_http_header_filter
(ngx_http_header_filter_module.c).
"""

from typing import Final

from derp.http.hidden.grammar import HTTP_10

TO_HTTPS: Final = 497
"""nginx's own number for plain HTTP on a port with TLS: it is told as 400."""

_PAGES: Final = {
    400: ("400 Bad Request", "400 Bad Request", ""),
    404: ("404 Not Found", "404 Not Found", ""),
    405: ("405 Not Allowed", "405 Not Allowed", ""),
    413: ("413 Request Entity Too Large", "413 Request Entity Too Large", ""),
    414: ("414 Request-URI Too Large", "414 Request-URI Too Large", ""),
    494: (
        "400 Bad Request",
        "400 Request Header Or Cookie Too Large",
        "<center>Request Header Or Cookie Too Large</center>\r\n",
    ),
    497: (
        "400 Bad Request",
        "400 The plain HTTP request was sent to HTTPS port",
        "<center>The plain HTTP request was sent to HTTPS port</center>\r\n",
    ),
    501: ("501 Not Implemented", "501 Not Implemented", ""),
    503: ("503 Service Temporarily Unavailable", "503 Service Temporarily Unavailable", ""),
    505: ("505 HTTP Version Not Supported", "505 HTTP Version Not Supported", ""),
}
"""By status: the status told, the title of the page, and a second line of it."""
_PADDING: Final = "<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n" * 6


def page(status: int, *, padded: bool = False) -> bytes:
    """Return nginx's page for a status; `padded` as it is for Internet Explorer and Chrome."""
    told, title, more = _PAGES[status]
    text = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{told}</h1></center>\r\n{more}"
        f"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return f"{text}{_PADDING if padded else ''}".encode()


def answer(
    status: int,
    date: str,
    *,
    method: bytes = b"GET",
    version: int = HTTP_10,
    padded: bool = False,
    keeps_alive: bool = False,
) -> bytes:
    """Return nginx's whole answer; `date` is an HTTP date.

    With a version before HTTP/1.0 that is the page alone. For HEAD it has no page.
    """
    if version < HTTP_10:
        return page(status)
    body = page(status, padded=padded)
    head = (
        f"HTTP/1.1 {_PAGES[status][0]}\r\n"
        f"Server: nginx\r\n"
        f"Date: {date}\r\n"
        f"Content-Type: text/html\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Connection: {'keep-alive' if keeps_alive else 'close'}\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)
