"""Admission: who may use the relay, decided at each login and again while a client is connected.

    model          Question, Outcome, Verdict; the protocols Source and Admission
    make           makes the checker from the configuration
    makedevices    makes the lists of devices
    checker        decides, caches, counts
    sources        the sources of a relay, and the rule by which their verdicts make one
    cache          the verdicts of the last seconds
    policysource   a source: the policy file                   (policykeeper: puts it in force)
    allowlist      a source: the operator's file of keys       (listkeeper: keeps it in force)
    listedit       a list with some keys more or fewer         (listrewrite: the same on disk)
    filewatch      whether either file has changed           (requests: what operators want of both)
    devicelist     a source: the devices that an API lists     (devicewatch: keeps it up to date)
    refusals       the keys that were refused last
    keep           the tasks that keep the checker up to date
    tailscaled     a source: the LocalAPI of this machine's tailscaled
    url            a source: an admission URL, such as headscale's /verify
    asker          one source, and the questions that wait for it
    lateanswers    answers for which no client waited any more
    limiter        how many questions go to a source at a time, and when it counts as down
    fairqueue      the order in which questions wait

A source allows, refuses, or can't be asked. From the outcomes the checker makes one verdict.
"""
