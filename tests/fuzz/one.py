"""One target under atheris: `python -m tests.fuzz.one TARGET [libFuzzer's options] CORPUS...`.

libFuzzer mutates the inputs of the corpus, keeps those that reach new code, and writes one that
raises to a file.
"""

import sys

import atheris

with atheris.instrument_imports(include=["derp", "stun", "certs", "h11", "websockets"]):
    from tests.fuzz import targets


def main() -> None:
    """Run the target that the first argument names, until libFuzzer ends the process."""
    name = sys.argv.pop(1)
    target = targets.planted if name == targets.planted.__name__ else targets.TARGETS[name]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
