"""Sockets: the transports that carry DERP and HTTP.

address        hosts, ports and IP addresses in text                           (sans-I/O)
transport      the interface of a byte stream to one peer
tcp, tls, websocket   its implementations; tlsclient is the client's end of tls
tlsengine      what all TLS connections of a process share
budgets        bounds on reads and TLS records that bring no data               (sans-I/O)
poller         one task that reads for all idle clients
prelogin       the scheduler of connections that have not logged in
listener       listening sockets, and the loop that accepts
activation     listening sockets that systemd passes
descriptors    the process's limit of open files, and how near it is
httpclient     HTTP/1.1 to other servers, with h11
resolver       name look-ups, in threads of their own
backoff        exponential backoff                                             (sans-I/O)
tcpinfo        struct tcp_info
oserrors       the operating system's error under a library's
tlserrors      OpenSSL's numbers and names of failures
"""
