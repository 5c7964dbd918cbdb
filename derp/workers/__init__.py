"""More than one process for one relay: workers that share its ports, and their supervisor.

    supervisor     the parent process: prepares, asks, orders, stops; serves no client
    pool           the worker processes: started, called, stopped, restarted
    watchdog       when a worker hangs
    handover       what a worker gets when it starts
    worker         a process that serves clients
    rpc            calls between supervisor and worker, each with an answer
    links          packets go from worker to worker without the supervisor, as in a mesh

What a relay has once is divided between the two:

    certificates   renewed by the supervisor, served by the workers
    admission      asked by the supervisor, once for all
    pages          made by the supervisor of the snapshots of all workers (merge: sans-I/O)

`derp.relay.claims` says which of several workers has a key.
"""
