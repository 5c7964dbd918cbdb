"""Sockets: the transports that carry DERP and HTTP.

address        hosts, ports and IP addresses in text                           (sans-I/O)
listenaddress  addresses to listen on                                          (sans-I/O)
transport      the interface of a byte stream to one peer; tcp, tls and websocket implement it
proxyheader    the PROXY header of a connection
tlsengine      the context and buffers that TLS connections share; tls and tlsclient use them
budgets        bounds on reads and TLS records that bring no data               (sans-I/O)
poller         one task that reads for all idle clients
prelogin       the scheduler of connections that have not logged in
listener       listening sockets, and the loop that accepts
unixlistener   a listening unix socket with a path
peercred       the process that has connected to a unix socket
activation     listening sockets that systemd passes
socketoptions  sockets that are bound to an interface, or whose packets are marked
interfaces     the addresses of network interfaces
congestion     the congestion control of TCP, and how to have BBR
descriptors    the process's limit on open files: warnings and refusals
httpclient     HTTP/1.1 to other servers, with h11
outgoing       makes that client: root certificates, proxies
resolver       name look-ups, in threads of their own
backoff        exponential backoff                                             (sans-I/O)
tcpinfo        struct tcp_info
streamend      whether the peer's stream ended before a reset
system         what Linux has, and others may lack
oserrors       the operating system's errors, in words and as causes
tlserrors      OpenSSL's numbers and names for handshake failures
"""
