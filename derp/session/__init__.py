"""A logged-in client, from its login to its end.

serve          one client's life: login, join, leave
state          what all sessions share
client         a client, as the others see it
reader         the receiving half of a client: read, act, hand on
sender         the sending half of a client or a link: write through, or queue and send
presence       what watchers are told: who comes and goes
meshpeer       what only other relays may send, who have shown the mesh key
timers         keep-alives, stale queues and round-trip times, for all clients at once
recheck        admission asked again about those who are connected
serverinfo     the rate limit, told again when it changes
"""
