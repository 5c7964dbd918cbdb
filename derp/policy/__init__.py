"""The policy file of -policy: by node key, who may use the relay, how fast, and how much.

    document       the file's bytes to a Policy; a mistake is named by its line
    lines          finds the statements of a TOML document, and the line of each
    amounts        rates, sizes and quotas as text
    model          Policy, Entry, Quota; the protocol Usage of what counts a key's bytes
    file           reads the file                                        (does I/O)
    change         an operator's change of what is said about one key
    edit           makes that change in the file's text
    rewrite        and writes the file                                   (does I/O)

A policy is a source of verdicts (derp.admission.checker) and of rate limits (derp.session.state).
"""
