"""One process of the relay: what starts, serves and stops.

standalone     the relay as one process: its signals, and what workers leave to a supervisor
run            the root nursery: serves until told to stop
startup        before: files read, sockets opened, all that can fail at start
interpreter    before, too: the log, the garbage collector
sockets        what is served on: handed over by systemd, or opened
tls            which certificate answers which ClientHello
accept         the connection task: accepted socket ► TLS ► HTTP ► Handoff ► session
running        the relay while it serves: its nurseries, and what they share
announce       what the operator is told once everything is served
signals        SIGTERM, SIGINT and SIGHUP as events        (reload: the rate limit)
status         a snapshot of the figures, and the pages made of it
                                          (debugrows: /debug/, traffic: /debug/traffic)
summaries      how many refusals, connects and disconnects had no log line of their own
memory         how much memory there is for this process
drain          the end: no new connection, and a Restarting frame to each client
"""
