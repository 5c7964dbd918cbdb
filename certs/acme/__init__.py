"""Certificates by ACME (RFC 8555), with certbot's `acme` library.

    authority     who is asked, and as whom; whether its CA bundle can be used
    order         a certificate wanted: ordered and put into its file; when it is to be renewed
    issue         the conversation with the authority
    challenge     the answers to its question whether a name is ours
    account       the account key
    store         the files in -certdir, and the lock
    network       the way to the authority: limits on time, size and clock
    explain       what went wrong, in one line with a cure
    ari           renewal information (ACME Renewal Information, RFC 9773)
    schedule      sans-I/O: when to renew, how long to wait after a failure

order, issue, network and explain import the library, which takes time and memory: import `order`
only where certificates come by ACME. It blocks; nothing here imports `derp` or waits for another
task.
"""
