"""Command lines and environments as public set-ups have them, and what is to come of each.

Names, addresses and tokens are made up; what a shell or systemd makes of a line is kept.
"""

import attrs

from tests.support import derperdocker


@attrs.frozen
class Setup:
    """What somebody has. In `line`, as in a Dockerfile's CMD, the environment is expanded."""

    name: str
    line: str
    env: dict[str, str] = attrs.Factory(dict)
    hostname: str = "derp.example.com"
    """For which there is a certificate in each folder of certificates."""
    addr: str | None = ":443"
    """Where DERP is to be served; None if it is to refuse the line."""
    tls: bool = True
    http: str | None = ":80"
    stun: int | None = 3478
    warns: str = ""
    """What the log has to say; where it refuses, the one line that says why, after `derper: `."""


DERPER_DOCKER = (
    "/app/derper --hostname=$DERP_DOMAIN --certmode=$DERP_CERT_MODE --certdir=$DERP_CERT_DIR "
    "--a=$DERP_ADDR --stun=$DERP_STUN --stun-port=$DERP_STUN_PORT --http-port=$DERP_HTTP_PORT "
    "--verify-clients=$DERP_VERIFY_CLIENTS --verify-client-url=$DERP_VERIFY_CLIENT_URL"
)
"""fredliang44/derper-docker, and what has grown from it."""
DERPER_DOCKER_ENV = derperdocker.ENVIRONMENT | {
    "DERP_DOMAIN": "derp.example.com",
    "DERP_CERT_MODE": "manual",
}

IP_DERPER = (
    "/app/derper --hostname=$DERP_HOST --certmode=manual --certdir=$DERP_CERTS --stun=$DERP_STUN "
    "--a=$DERP_ADDR --http-port=$DERP_HTTP_PORT --verify-clients=$DERP_VERIFY_CLIENTS"
)
"""yangchuansheng/ip_derper, and what has grown from it."""
IP_DERPER_ENV = {
    "DERP_HOST": "127.0.0.1",
    "DERP_CERTS": "/app/certs/",
    "DERP_STUN": "true",
    "DERP_ADDR": ":443",
    "DERP_HTTP_PORT": "80",
    "DERP_VERIFY_CLIENTS": "false",
}

SETUPS = (
    Setup("derper-docker", DERPER_DOCKER, DERPER_DOCKER_ENV),
    Setup(
        "derper-docker that gets a certificate",
        DERPER_DOCKER,
        {**DERPER_DOCKER_ENV, "DERP_CERT_MODE": "letsencrypt"},
    ),
    Setup(
        "derper-docker without a name",
        DERPER_DOCKER,
        {**DERPER_DOCKER_ENV, "DERP_DOMAIN": "your-hostname.com", "DERP_CERT_MODE": "letsencrypt"},
        addr=None,
        warns="your-hostname.com: that is a placeholder",
    ),
    Setup(
        "derper-docker for members",
        DERPER_DOCKER,
        {**DERPER_DOCKER_ENV, "DERP_VERIFY_CLIENTS": "true"},
        warns="tailscaled",
    ),
    Setup(
        "derper-docker behind a proxy",
        DERPER_DOCKER,
        {**DERPER_DOCKER_ENV, "DERP_CERT_MODE": "letsencrypt", "DERP_ADDR": ":12345"},
        addr=":12345",
        tls=False,
        http=None,
        warns="clients want HTTPS, and this is HTTP",
    ),
    Setup(
        "derper-docker on other ports",
        DERPER_DOCKER,
        {
            **DERPER_DOCKER_ENV,
            "DERP_ADDR": ":10088",
            "DERP_HTTP_PORT": "-1",
            "DERP_STUN_PORT": "10089",
        },
        addr=":10088",
        http=None,
        stun=10089,
    ),
    Setup(
        "derper-docker that asks headscale",
        DERPER_DOCKER,
        {**DERPER_DOCKER_ENV, "DERP_VERIFY_CLIENT_URL": "https://headscale.example.com/verify"},
    ),
    Setup(
        "variables alone, as Compose has them for an image of ours",
        "/app/derper",
        {**DERPER_DOCKER_ENV, "DERP_VERIFY_CLIENTS": "true"},
        warns="tailscaled",
    ),
    Setup(
        "variables alone, beside a Kubernetes Service called derp-stun",
        "/app/derper",
        {**DERPER_DOCKER_ENV, "DERP_STUN_PORT": "udp://10.0.0.1:3478"},
        warns="DERP_STUN_PORT",
    ),
    Setup(
        "flags that win over Kubernetes's variables",
        "/app/derper -hostname derp.example.com -certmode manual -certdir /app/certs "
        "-stun-port 3479",
        {"DERP_STUN_PORT": "udp://10.0.0.1:3478", "DERP_HTTP_PORT": "tcp://10.0.0.1:80"},
        stun=3479,
    ),
    Setup("ip_derper", IP_DERPER, IP_DERPER_ENV, hostname="127.0.0.1"),
    Setup(
        "ip_derper on other ports, with stun-port as two words",
        IP_DERPER.replace("--http-port", "-stun-port $STUN_PORT --http-port"),
        {
            **IP_DERPER_ENV,
            "STUN_PORT": "3479",
            "DERP_ADDR": ":30443",
            "DERP_HTTP_PORT": "30080",
        },
        hostname="127.0.0.1",
        addr=":30443",
        http=":30080",
        stun=3479,
    ),
    Setup(
        "a port in DERP_ADDR, and the colon in the line",
        "/app/derper -hostname $DERP_DOMAIN -certmode manual -certdir /app/certs "
        "-a :$DERP_ADDR -stun=true -http-port=-1",
        {"DERP_DOMAIN": "derp.example.com", "DERP_ADDR": "8443"},
        addr=":8443",
        http=None,
    ),
    Setup(
        "a port without its colon",
        "/app/derper -hostname derp.example.com -certmode manual -certdir /app/certs -a 8443",
        addr=None,
        warns="-a",
    ),
    Setup(
        "a bool with its value as the last word",
        "/app/derper -hostname derp.example.com -certmode manual -certdir /app/certs "
        "--verify-clients true",
        warns="-verify-clients true",
    ),
    Setup(
        "a bool with its value in the middle, before the flags that Go would lose",
        '/app/derper -hostname "$TS_DERP_HOSTNAME" -certdir /app/certs -certmode manual '
        '-verify-clients "$TS_DERP_VERIFY_CLIENTS" -a :8443 -http-port 8080 -stun-port 3479 '
        "-stun -derp",
        {"TS_DERP_HOSTNAME": "derp.example.com", "TS_DERP_VERIFY_CLIENTS": "false"},
        addr=":8443",
        http=":8080",
        stun=3479,
        warns="-verify-clients false",
    ),
    Setup(
        "stun as two words",
        "/app/derper -hostname derp.example.com -certmode manual -certdir /app/certs "
        "-a :8443 -stun true -http-port -1",
        addr=":8443",
        http=None,
        warns="-stun true",
    ),
    Setup(
        "a blog's container on port 8082",
        "/derper -hostname derp.example.com -stun -a :8082 -certmode manual -certdir /cert",
        addr=":8082",
    ),
    Setup(
        "a blog's unit, which gives STUN's number to HTTP",
        "/etc/derp/derper -hostname derp.example.com -a :14662 -http-port 3478 -certmode manual "
        "-certdir /etc/derp --verify-clients",
        addr=":14662",
        http=":3478",
        warns="tailscaled",
    ),
    Setup(
        "a blog's unit with --a and quotes",
        "/usr/local/bin/derper --hostname derp.example.com "
        '--certmode letsencrypt --stun --a ":443"',
    ),
    Setup(
        "one with a key file that is not there yet",
        "/app/derper -hostname derp.example.com -c=/app/derper.conf -a :443 -http-port 80 "
        "-certdir /app/certs -certmode manual -stun",
    ),
    Setup(
        "one with everything empty",
        "/derper -hostname=$DERP_DOMAIN -certmode=$DERP_CERT_MODE -certdir=$DERP_CERT_DIR "
        "-a=$DERP_ADDR -stun=$DERP_STUN -stun-port=$DERP_STUN_PORT -http-port=$DERP_HTTP_PORT "
        "-verify-clients=$DERP_VERIFY_CLIENTS -verify-client-url=$DERP_VERIFY_CLIENT_URL "
        "-mesh-psk-file=$DERP_MESH_PSK_FILE -c=/app/derper.key",
        {**DERPER_DOCKER_ENV, "DERP_MESH_PSK_FILE": "", "DERP_CONFIG_FILE": ""},
    ),
    Setup(
        "headscale's guide, closed to strangers",
        "/app/derper -hostname derp.example.com -certmode manual -certdir /app/certs -a :443 "
        "-stun -stun-port 34479 -verify-client-url http://127.0.0.1:8080/verify "
        "-verify-client-url-fail-open=false",
        stun=34479,
    ),
    Setup(
        "an entry point that adds a blank home page",
        '/app/derper -c /app/state/derper.key --hostname="$DERP_DOMAIN" --certmode=manual '
        '--certdir=/app/certs -a "$DERP_ADDR" --home=blank',
        {"DERP_DOMAIN": "derp.example.com", "DERP_ADDR": ":443"},
    ),
    Setup(
        "bootstrap DNS and its own name",
        "/root/go/bin/derper --hostname derp.example.com --bootstrap-dns-names derp.example.com "
        "-certmode manual -certdir /root/derper/derp.example.com --stun --verify-clients=false",
    ),
    Setup(
        "flags that no derper has",
        "/derper --hostname=derp.example.com --a=:443 --stun-port=3478 --verify-clients=false "
        "--stun --certfile=/certs/derp.crt --keyfile=/certs/derp.key",
        addr=None,
        warns="-certfile",
    ),
    Setup(
        "no certificate where it is said to be",
        "/app/derper -hostname nowhere.example.com -certmode manual -certdir /app/certs",
        addr=None,
        warns="nowhere.example.com.crt",
    ),
)
