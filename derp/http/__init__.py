"""The h11 front end: everything that is not DERP frames.

server             one connection's HTTP, from its first byte to its end or its handoff
message            a request and what may answer it                            (sans-I/O)
routes             which path gets which answer                                (sans-I/O)
pages              the HTML that people see                                    (sans-I/O)
access             who may see /debug/                                         (sans-I/O)
bootstrap_dns      /bootstrap-dns: addresses of a few names                    (sans-I/O)
bootstrap_refresh  the task that looks them up
"""
