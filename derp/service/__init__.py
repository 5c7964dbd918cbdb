"""One process of the relay: what starts, serves and stops.

run            the root nursery: serves, reloads
startup        before: files read, sockets opened, all that can fail at start
sockets        what is served on: handed over by systemd, or opened
accept         the connection task: accepted socket ► TLS ► HTTP ► Handoff ► session
tls            which certificate answers which ClientHello
announce       what the operator is told once everything is served
status         what the pages show of the running relay
memory         how much memory there is for this process
drain          the end: nobody new, a word to those who are there
"""
