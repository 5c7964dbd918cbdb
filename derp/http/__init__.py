"""The HTTP front end, on h11: all that comes before DERP frames, and the pages.

server             one connection's HTTP, from its first byte to its end or its handoff
requestreader      reads the requests of one connection
knownheads         heads of upgrades, so that each is parsed once               (sans-I/O)
message            requests and answers                                        (sans-I/O)
routes             the answer to each path                                     (sans-I/O)
    statussource       what the answers depend on                                  (sans-I/O)
pages              the HTML pages                                              (sans-I/O)
monitoring         the pages of -metrics-addr                                  (sans-I/O)
forwarded          the client behind proxies, by the headers they add         (sans-I/O)
access             who may see /debug/                                         (sans-I/O)
bootstrap_dns      /bootstrap-dns: addresses of a few names                    (sans-I/O)
bootstrap_refresh  the task that looks these names up
"""
