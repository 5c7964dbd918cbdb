"""A STUN responder (RFC 8489) that answers Tailscale clients.

    message         requests and responses, byte by byte, for either side        (sans-I/O)
    batch           many requests at once, turned into responses in place        (sans-I/O)
    mmsg            Linux's recvmmsg and sendmmsg, to and from a batch
    pktinfo         the address that a datagram was sent to
    plain           answers one datagram at a time, on any system
    batched         answers a batch at a time
    responder       chooses plain or batched, by how many datagrams come at once
    stats           counters
    proxy_signs     whether a proxy hides the addresses of all clients           (sans-I/O)
    proxy_detector  observes the senders on one socket, and warns
    server          the sockets, and the task that serves one of them

`stun.message` alone is of use to a client.
"""
