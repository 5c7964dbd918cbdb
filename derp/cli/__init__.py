"""The command line: `derper`, and each command as a word before its flags.

    main           flags and environment to a Config; exit codes
    healthcheck    ask the running relay whether it serves     (procfs: the flags of a process)
    derpmap        print the relay's entry for a DERP map       (mapcheck: as clients check it)
    probe          the probes of both: TCP, TLS, the upgrade to DERP, STUN
    command_flags  a command's flags, beside all those of the relay

A command takes the relay's own flags and variables: where the environment has them, as in a
container, it needs no flags. The relay imports none of the commands.
"""
