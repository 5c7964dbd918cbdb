"""What a person types: `derper`, and each command as a word before its flags.

    main           flags and environment to a Config; exit codes
    healthcheck    ask the running relay whether it serves     (procfs: what it was started with)
    derpmap        print the relay's entry for a DERP map       (mapcheck: what clients would find
                   wrong with it)
    probe          the questions themselves: TLS, the upgrade to DERP, STUN
    command_flags  a command's flags, beside all those of the relay

A command takes the relay's own flags and variables, so that where the relay gets them from its
environment, as in a container, a command needs none. The relay loads none of the commands.
"""
