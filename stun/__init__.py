"""A STUN responder (RFC 8489) that answers Tailscale clients."""
