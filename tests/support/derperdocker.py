"""The environment that the image of derper-docker sets."""

ENVIRONMENT = {
    "DERP_DOMAIN": "your-hostname.com",
    "DERP_CERT_MODE": "letsencrypt",
    "DERP_CERT_DIR": "/app/certs",
    "DERP_ADDR": ":443",
    "DERP_STUN": "true",
    "DERP_STUN_PORT": "3478",
    "DERP_HTTP_PORT": "80",
    "DERP_VERIFY_CLIENTS": "false",
    "DERP_VERIFY_CLIENT_URL": "",
}
