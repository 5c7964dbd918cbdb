"""A logged-in client, from its login to its end.

serve          one client's life: log in, join, serve, leave
login          the client proves its key and is admitted
reader         the receiving half of a client: read, act, route
isolation      clients of different groups, which can't reach each other
meshpeer       a client that has shown the mesh key: it may forward, watch and disconnect others
state          what all sessions of a process share
presence       what watchers are told: which clients connect and disconnect
timers         keep-alives, stale queues and round-trip times, for all clients at once
reachable      wakes the dialler of a relay that has logged in here
client         routes a client's packets, and delivers to it
sender         the sending half of a client or a link: write through, or queue and send
accounting     what each client moves: for the accounts, and for its last log line
recheck        admission, asked again about connected clients
serverinfo     puts a rate limit in force, and tells the clients
health         tells clients what is wrong with their use of the relay
turns          goes over many clients, some in each turn of the event loop
review         looks from time to time who is over its quota, and which keys are cloned
"""
