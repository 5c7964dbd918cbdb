"""A DERP relay for Tailscale clients: the map of this package.

Each client opens TLS, upgrades one HTTP request to DERP, logs in with its node key, and from then
on sends packets addressed by key; the relay hands each to the connection that logged in with it.

    cli            the command line: flags to a Config, exit codes; commands such as clients
    workers        several processes for one relay: the supervisor, its workers, what they share
    service        one process: its start, its tasks, its stop
    mesh           links to other relays: dialled, kept, packets forwarded on them
    session        a logged-in client, from its login to its end
    admission      who may use the relay: asks lists, tailscaled and URLs
    policy         what the policy file says about each key, and changes of it
    devices        the devices of a tailnet, as Tailscale's or headscale's API lists them
    files          the keys and limits on disk, in the Go derper's formats
    derpmap        the relay's entry for a DERP map
    accounts       who moves how much: bytes, packets and time by node key and day
    config         every flag: name, variable, default, check
    http           the h11 front end (its decisions are sans-I/O)
    net            listening, the limit on open files; transports: TCP, TLS, websocket; the poller,
                   which reads for idle clients; the scheduler of connections before login
    relay          sans-I/O: who is connected, what is queued, what is dropped
    metrics        counters under the Go derper's names, and their page
    wire           sans-I/O: keys, frames, logins, trains of packets, websocket frames, commands
    log            one line for each event; never blocks the event loop
    errors         every error, in one tree
    quantities     sans-I/O: sizes and rates as text for people

A packet:  net.poller ► session.reader ► net.tls ► wire.trains ► session.client (route: relay.hub)
► session.client (deliver) ► net.tls ► socket; or, for a key at another worker or relay,
► mesh.link ► wire.forwarding ► socket

Imports point down this list; `stun` and `certs`, beside this package, import nothing of it. Code
that is sans-I/O knows no clock. `lint-imports` holds both.
"""

__version__ = "0.1.0"
