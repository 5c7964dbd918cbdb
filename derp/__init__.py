"""A DERP relay for Tailscale clients: the map of this package.

Each client opens TLS, upgrades one HTTP request to DERP, logs in with its node key, and from then
on sends packets addressed by key; the relay hands each to the connection that logged in with it.

    cli            flags and environment to a Config; exit codes
    config         every flag: name, variable, default, check
                   (parts: certoptions, verifyoptions, meshoptions, limitoptions, debugoptions,
                   options, flags, values, refused; knobs: variables without a flag;
                   strconv: numbers as Go reads them)
    commands/      derper derpmap, derper healthcheck
    workers/       more than one process for one relay: who looks after them, and what they share
    supervisor     the root nursery: serves, reloads
    announce       what the operator is told then
    drain          the end: nobody new, a word to those who are there
    prepared       before: files read, sockets opened, all that can fail at start
    accept         the connection task: accepted socket ► TLS ► HTTP ► Handoff ► client
    client         one client's life: login, join, leave
    reader         the receiving half of a client: read, act, hand on
    meshpeer       what only other relays may send, who have shown the mesh key
    presence       what they are told: who comes and goes
    connection     a client, as the others see it
    sender         the sending half of a client or a link: write through, or queue and send
    admission      who may use the relay: the gate made, lists and clients looked at again
    timers         keep-alives, stale queues and round-trip times, for all clients at once
    toldlimit      the rate limit, told again when it changes
    server         what all connections share
    site           what the pages show of the running server
    sockets        what is served on: handed over by systemd, or opened
    machine        how much memory there is (memorysize: how much something may take)
    mapentry       the relay's entry for a DERP map
    keyfile        the node key, in the Go derper's file        (meshkey: what a region shares;
                   secretfile: how both are read; ownership: who could swap them)
    debugkey       the key that opens /debug/ from anywhere
    rateconfig     what each client may send                    (gojson: JSON as Go reads it)

    admit/         the gate: list, tailscaled and URLs asked who belongs
    certificates/  had, renewed and replaced while the server runs
    mesh/          links to other relays, and workers: dialled, kept, packets forwarded on them
    http/          the h11 front end (server: I/O; message, routes, pages, access: pure)
    net/           listening, the limit on open files; transports: plain TCP, TLS, websocket;
                   the poller, which reads for clients that are calm; the lobby, where connections
                   wait before login; budgets for what brings no data
    relay/         pure: hub, duplicates, forwarders; outbox (fairbox: that of a link), updates,
                   queuememory: one bound for all; rate limit, moderation, timer wheel; pending:
                   what all that has not logged in may take, by networks
    wire/          pure: keys, frames, login boxes, runs of packets, websocket frames; what a
                   TLS client asks for
    metrics/       counters under the Go derper's names, and their page
    log/           one event a line, never in the event loop's way
    errors         every error, in one tree

A packet:  net.poller ► reader ► net.tls ► wire.runs ► relay.hub ► connection ► net.tls ► socket

Imports point down this list; `stun` and `certs`, beside this package, import nothing of it. Pure
code does no I/O and knows no clock. `lint-imports` holds both.
"""

__version__ = "0.1.0"
