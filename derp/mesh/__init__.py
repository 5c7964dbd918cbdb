"""Links to the other relays of a region: each relay dials all others, and each link is one way.

    plan           what is read at the start, and the tasks made from it
    keeper         one task for each entry of -mesh-with: dial, log in, serve; repeat
    dial           from an entry to a connection that speaks DERP: name, TCP, TLS, HTTP upgrade
    handshake      the login at another relay, with the mesh key, and the request to watch
    link           one link: it brings the keys that are connected there, and takes their packets

A relay that has dialled this one is a client here, with more rights: see derp.session.meshpeer and
derp.session.presence. A link adds the other relay's keys to the hub (derp.relay.forwarders), and
that is all that the packet path knows of it: where no client has a packet's destination, the hub
may have a link for it, whose `forward` is called.

A link that ends removes its keys. `forward` never waits, and what a slow relay does not take is
dropped like a slow client's packets.
"""
