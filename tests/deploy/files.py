"""Reads the files of deploy/, and of the image they run, as far as the tests have to know them."""

import re
import shlex
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

SERVICE = DEPLOY / "derper.service"
SOCKET = DEPLOY / "derper.socket"
QUADLET = DEPLOY / "derper.container"
COMPOSE = DEPLOY / "compose.yaml"

Settings = dict[str, list[str]]


def unit(path: Path) -> Settings:
    """Read a unit file: the values of each `Section.Key`, in their order."""
    found: Settings = defaultdict(list)
    section = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found[f"{section}.{key}"].append(value)
    return found


def compose() -> Settings:
    """Read compose.yaml: the values at each path, such as `services.derper.volumes`.

    It knows the YAML that is in there: mappings, lists of plain values, and lists in one line.
    """
    found: Settings = defaultdict(list)
    path: list[tuple[int, str]] = []
    for line in COMPOSE.read_text("utf-8").splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        indent = len(line) - len(line.lstrip())
        while path and path[-1][0] >= indent:
            path.pop()
        item = re.fullmatch(r"- (\S+)", text)
        pair = re.fullmatch(r"(\w+):(?: (.+))?", text)
        assert item or pair, f"not understood: {line}"
        if pair:
            path.append((indent, pair[1]))
        value = item[1] if item else pair[2] if pair else None
        where = found[".".join(name for _, name in path)]
        if value is not None:
            inline = re.fullmatch(r"\[(.*)\]", value)
            values = inline[1].split(", ") if inline else [value]
            where += [one.strip('"') for one in values]
    return found


def commented(path: Path) -> str:
    """Give a file with what it has commented out as settings, `#Key=…` and `# key: …`, put in."""
    return re.sub(r"(?m)^( *)#(?=[A-Z]\w+=)|^( +)# (?=-|\w+: )", r"\1\2", path.read_text("utf-8"))


class Image:
    """What the Containerfile says of the image."""

    def __init__(self) -> None:
        text = (ROOT / "Containerfile").read_text("utf-8").replace("\\\n", " ")
        stages = text.split("\nFROM ")
        self.build, self.final = stages[-2], stages[-1]
        self.environment = dict(
            word.split("=", 1)
            for words in re.findall(r"(?m)^ENV (.*)", self.final)
            for word in shlex.split(words)
        )
        self.volumes = re.findall(r"(?m)^VOLUME (\S+)", self.final)
        self.ports = [
            port if "/" in port else f"{port}/tcp"
            for ports in re.findall(r"(?m)^EXPOSE (.*)", self.final)
            for port in ports.split()
        ]
        self.entrypoint = (DEPLOY / "entrypoint").read_text("utf-8")


def seconds(text: str) -> float:
    """Read `10s`, or `10`."""
    return float(text.removesuffix("s"))
