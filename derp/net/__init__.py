"""Sockets: the transports that carry DERP and HTTP.

transport      what carries bytes to and from one peer: one shape, and three kinds of it:
tcp, tls, websocket
budgets        what one peer may cost in reads and TLS records that bring no data
poller         one task that reads for all idle clients
lobby          where connections wait before login
listener       listening sockets, and the loop that accepts
activation     listening sockets that systemd holds
descriptors    how near the process is to its limit of open files
resolver       look-ups of names, in threads of their own
backoff        how long to wait before the next try                            (sans-I/O)
oserrors       the operating system's error under a library's
"""
