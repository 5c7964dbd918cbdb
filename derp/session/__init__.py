"""A logged-in client, from its login to its end.

serve          one client's life: log in, join, serve, leave
login          the client's proof of its key, and admission
reader         the receiving half of a client: read, act, route
meshpeer       a client that has shown the mesh key: it may forward, watch, and close others
state          what all sessions of a process share
presence       what watchers are told: who comes and goes
timers         keep-alives, stale queues and round-trip times, for all clients at once
reachable      lost relays that have logged in here, and so can be dialled again
client         a client: where its packets go, and what others hand to it
sender         the sending half of a client or a link: write through, or queue and send
recheck        admission asked again about clients that are connected
serverinfo     the rate limit, put in force and told to clients when it changes
"""
