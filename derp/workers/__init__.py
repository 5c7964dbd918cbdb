"""More than one process for one relay: workers that share its ports, and their supervisor.

    supervisor     the one process that all have in common: prepares, asks, orders, stops; serves
                   nobody
    pool           the processes of the workers: started, asked, stopped, started anew
    watchdog       when a worker hangs
    handover       what a worker gets when it starts
    worker         a relay in all but what its supervisor does for it
    rpc            calls between supervisor and worker, each with an answer     (asking: who calls)
    links          packets go from worker to worker without the supervisor, as in a mesh

What a relay has once is divided between the two:

    certificates   renewed by the supervisor, served by the workers
    admission      asked by the supervisor, once for all
    pages          put together by the supervisor of what each worker counts
                   (workerpages: the worker's part; snapshot, merge: sans-I/O)

`derp.relay.claims` says which of several workers has a key.
"""
