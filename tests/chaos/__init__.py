"""Chaos: a relay in use while faults come and go, and its books afterwards.

`python3 noxfile.py -s chaos` runs it; CONTRIBUTING.md says what it is for.

    session     one run: the stage set, the schedule played, the books read, the table printed
    schedule    sans-I/O: which fault begins and ends when, by a seed
    fault       what every fault is, and which there are
    processes   faults: the relay's processes killed, stopped, their clock stepped; mesh peers
    resources   faults: descriptors, memory, disk, log pipe
    outside     faults: admission server, tailnet API, ACME server away
    files       faults: certificate, list and policy replaced
    stage       the relay and all that is around it
    piped       a relay whose log goes through a pipe
    admission   a program: the admission server
    load        a program: the clients
    crowd       the session's side of that program
    reading     what a relay, and the kernel, say of it
    books       sans-I/O: what has to balance, and what does not
    accounts    sans-I/O: the accounts' sums against what the clients counted
    table       sans-I/O: the table of what each relay lost
"""
