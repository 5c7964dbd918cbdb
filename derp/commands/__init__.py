"""What `derper` does besides relaying: each command is a word before its flags.

    healthcheck    asks the running relay whether it serves
    derpmap        prints the relay's entry for a DERP map        (derp.mapentry: its text)
    check          what clients would find wrong with that entry
    ask            the questions themselves: TLS, the upgrade to DERP, STUN
    flagged        a command's flags, beside all those of the relay

A command takes the relay's own flags and variables, so that where the relay gets them from its
environment, as in a container, a command needs none. None of this is loaded by the relay.
"""
