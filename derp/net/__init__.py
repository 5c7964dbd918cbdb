"""Sockets: the transports that carry DERP and HTTP."""
