"""What a relay decides: who is connected, what is queued, what is dropped. Sans-I/O.

hub            from key to connection
duplicates     several connections that logged in with one key
forwarders     the links to other relays through which a key is reached
claims         which other worker of this relay has a key
sendqueue      what waits for a client
drrqueue       what waits for a link, fairly between those who sent it
presencequeue  whom a watcher is still to be told about
queuememory    one bound for all queues
pending        connections that have not logged in: what a network may have, and all together
networks       the network that an address counts for
tokenbucket    rates: of a client's packets, of answers, of accepted connections
coalescing     when to let packets gather before the next read
timerwheel     one timer for all members
"""
