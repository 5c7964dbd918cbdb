"""Links to the other relays of a region: each relay dials all others, and each link is one way.

    plan           what is read at the start, and the tasks made of it
    keeper         one task for each entry of -mesh-with: dials, logs in, serves, and does so again
    dial           from an entry to a connection that speaks DERP: name, TCP, TLS, HTTP upgrade
    handshake      the login at another relay, with the mesh key, and the wish to watch
    link           one link: presence is heard on it, packets are forwarded on it

What comes the other way, from relays that have dialled this one, is a client like any other to
begin with: see derp.session.meshpeer and derp.session.presence. What a link hears is told to the
hub (derp.relay.forwarders), and that is all that the packet path knows of it: where no client has a
packet's key, it asks the hub for a link, and calls `Link.forward`.

A link that ends takes with it what it told. Nobody waits for a link: `forward` never does, and what
a slow relay does not take is dropped like a slow client's packets.
"""
