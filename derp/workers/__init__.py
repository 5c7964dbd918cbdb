"""More than one process for one relay: workers that share its ports, and their supervisor.

    supervisor     the parent process: prepares, starts and stops the workers; serves no client
    pool           the worker processes: started, called, stopped, restarted
    watchdog       detects a worker that hangs
    handover       what a worker gets when it starts
    worker         a process that serves clients
    rpc            calls between supervisor and worker, each with an answer
    notices        log lines that one worker logs for all
    links          links over which packets go from worker to worker, as in a mesh

What a relay has once is divided between the supervisor and the workers:

    certificates   renewed by the supervisor, served by the workers
    admission      decided by the supervisor, for all workers
    policy         kept by the supervisor, in force in all workers
    clients        listed by the workers, a page in each call
    steering       done by the supervisor, at all workers
    accounts       written by the supervisor, counted by the workers
    pages          made by the supervisor from all workers' snapshots       (merge: sans-I/O)
    monitoring     served by the supervisor, of all workers

`derp.relay.claims` decides which of several workers has a key.
"""
