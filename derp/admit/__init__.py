"""Who may use the relay: asked at each login, and from time to time while a client is connected.

    login ──► gate ──► memory      a verdict of a moment ago
                 └───► sources, each asked a Question and giving an Answer
                          nodelist     the operator's file of keys
                          tailscaled   the LocalAPI of the machine's own tailscaled
                          controller   an admission URL, such as headscale's /verify

    question       the question, the answer, and what a source is
    nodelist       a file with one key per line, looked at again when it changes
    tailscaled     who is in the same tailnet as the relay's machine
    controller     whom a control server admits, asked by HTTP
    causes         what lies under an exception of the HTTP library
    memory         verdicts, remembered for a time
    limiter        how many questions go to a source at a time, and when it counts as down
    fairqueue      in which order they wait
    asker          asks one source so
    gate           asks the sources in order, remembers, counts
    judge          the gate as logins know it, in this process or in another one

A source answers one of three things: allowed, refused, or that it could not be asked. What follows
from the third is for the gate to decide, so no source knows what the others say.
"""
