"""A STUN responder (RFC 8489) that answers Tailscale clients.

    message   PURE: what a request and a response are, byte by byte, for either side
    batch     PURE: many requests at once, turned into responses where they lie
    mmsg      Linux's recvmmsg and sendmmsg, to and from a batch
    proxied   PURE: whether the requests of all clients come through something that hides them
    lookout   Trio: looks at the senders, and warns
    server    Trio: the sockets, and the task that serves one of them

`stun.message` alone is of use to a client.
"""
