"""One process of the relay: its start, its tasks, its stop.

standalone     the relay as one process: its signals, and what workers leave to a supervisor
run            serves until told to stop                (rootnursery: and ends by all means)
startup        before `run`: reads files, opens sockets, does all that can fail at start
interpreter    before `run`, too: the log, the garbage collector
sockets        the sockets that are served on: taken over from systemd, or opened
tls            which certificate answers which ClientHello
accept         the connection task: accepted socket ► TLS ► HTTP ► Handoff ► session
proxies        the operator's proxies: which client a connection or a request is for
hiding         connection tasks of a relay that hides
handshakes     the deadlines of what comes before HTTP
running        the relay while it serves: its nurseries, and what they share
announce       the log lines for the operator once all is served
signals        SIGTERM, SIGINT and SIGHUP as events        (reload: the rate limit)
status         a snapshot of the figures, and the pages made of it
                                          (debugrows: /debug/, traffic: /debug/traffic)
backend        the relay behind the HTTP front end
live           the live page: samples the relay while somebody looks        (liverows: the clients)
monitoring     the listener of -metrics-addr           (monitorpages: what it serves;
                                                        keytraffic: bytes by node key)
clients        the connected clients, as an operator sees them
steering       what an operator does to them: disconnect, deny, allow, limit
control        the control socket, over which commands ask for both
                                                      (keynames: which key is meant)
keybook        what policy and lists say of each key   (keylist: the list without a policy)
summaries      how many refusals, connects and disconnects had no log line of their own
memory         how much memory there is for this process
drain          at the end: a Restarting frame to each client, and what is queued for it
"""
