"""The HTTP front end, on h11: all that comes before DERP frames, and the pages.

server             one connection's HTTP, from its first byte to its end or its handoff
requestreader      reads the requests of one connection
knownheads         heads of upgrades, so that each is parsed once               (sans-I/O)
message            requests and answers                                        (sans-I/O)
routes             the answer to each path                                     (sans-I/O)
    backend            the relay behind the pages, as the router sees it               (sans-I/O)
pages              the home page, and the headers of all pages                 (sans-I/O)
liveroutes         the answers to the paths of the live page, /debug/          (sans-I/O)
    livepage           the page itself                                             (sans-I/O)
    liveview           what it shows of a relay at one moment                      (sans-I/O)
    liveevents         what has changed on it, as server-sent events               (sans-I/O)
    steer              what its buttons do, and who may press them                 (sans-I/O)
    assets             its files, in live/: HTML, script, style, icon
monitoring         the pages of -metrics-addr                                  (sans-I/O)
forwarded          the client behind proxies, by the headers they add         (sans-I/O)
access             who may see /debug/                                         (sans-I/O)
bootstrap_dns      /bootstrap-dns: addresses of a few names                    (sans-I/O)
bootstrap_refresh  the task that looks these names up
hidden             what others than clients get from a relay that hides
"""
