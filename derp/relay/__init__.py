"""The decisions of a relay: who is connected, what is queued, what is dropped. Sans-I/O.

hub            from key to client
duplicates     several clients that logged in with one key
forwarders     the links to other relays through which a key is reached
claims         which other worker of this relay has a key
clones         keys that are connected from different addresses at once
health         what a client is told is wrong, in words
sendqueue      what waits for a client or a link
flowqueue      the packets of a send queue, in a sub-queue for each sender (FQ-CoDel)
codel          when a sub-queue is too long
presencequeue  the keys whose presence a watcher is still to be told
queuememory    one bound for all queues
pending        connections before login: limits for each network, and for all together
sites          the sites of pending connections, by the memory that they hold
networks       the network of an IP address
groups         the groups of isolated clients, as tags
tokenbucket    rates: of a client's bytes, of peer-gone answers, of accepted connections
timerwheel     one timer for many members
"""
