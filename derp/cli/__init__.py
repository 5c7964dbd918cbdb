"""The command line: `derper`, and each command as a word before its flags.

    main           flags and environment to a Config; exit codes
    healthcheck    ask the running relay whether it serves
    derpmap        print the relay's entry for a DERP map       (mapcheck: --check)
    probe          the probes that healthcheck and mapcheck share: TCP, TLS, the upgrade, STUN
    accounts       print who has moved how much
    clients        list who is connected         (clienttable: as a table)
    top            show that live                (topview: what fits a terminal)
    steer          kick, deny, allow, limit
    keys           list allowed, denied and refused keys; fill the allow-list
                                                 (tailnetstatus: from tailscale status;
                                                  keyfiles: files, where no relay does it)
    control        the connection of these to the running relay
    command_flags  a command's own flags, and all those of the relay   (procfs: -of)

A command needs no flags where the environment has the relay's variables, as in a container. The
relay imports none of the commands.
"""
