"""More than one process for one relay: workers that share its ports, and who looks after them.

    parent         the one process that all have in common: prepares, asks, orders, stops; serves
                   nobody (crew: the processes; setup: what each gets when it starts)
    worker         a relay in all but that
    control        what they say to each other: calls with answers

What a relay has once is divided between the two:

    certificates   ordered and made there, served here
    gate           asked there, once for all
    pages          put together there of what each says (snapshot: here; share, merge: pure)

Packets go from worker to worker without it: see derp.mesh.siblings, and derp.relay.siblings for
which of several workers has a key.
"""
