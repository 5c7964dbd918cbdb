"""Links to the other relays of a region: each relay dials all others, and each link is one way.

    setup          the mesh key and root certificates, read at the start; makes the keepers
    keeper         a task for each other relay or worker: dial, log in, serve; repeat
    dial           name look-up, TCP, TLS and HTTP upgrade for an entry of -mesh-with
    login          the login at another relay, with the mesh key, and the request to watch
    link           one link: learns which keys are connected there, and forwards packets to them

A relay that has dialled this one is a mesh peer here: see derp.session.meshpeer and
derp.session.presence. While a link lasts, the keys of the other relay's clients are in the hub
(derp.relay.forwarders). A packet whose destination is not connected here goes to `forward` of the
link that the hub has for its key, if any. `forward` never waits: packets for a slow relay wait in a
send queue (derp.relay.sendqueue), and are dropped if too many wait.
"""
