"""The Helm chart, made of the files in deploy/kubernetes: `python -m release.chart` renews it.

A template is one of those files with values in place of what an operator fills in, rendered where
`mode` in values.yaml names the file. With the values of the chart it renders to that file.
"""

import re
from pathlib import Path
from typing import Final

import derp

ROOT: Final = Path(__file__).resolve().parents[1]
PLAIN: Final = ROOT / "deploy" / "kubernetes"
CHART: Final = ROOT / "deploy" / "helm"
MODES: Final = ("hostnetwork", "mesh", "service")

_HEAD: Final = re.compile(r"\A(#.*\n)+\n")
"""What a plain file begins with: how to apply it, which is another thing for a chart."""

_VALUES: Final = (
    (r"registry\.example\.com/derper$", "{{ .Values.image | quote }}"),
    (r"(name: DERP_DOMAIN\n +value: )derp\.example\.com$", r"\1{{ .Values.domain | quote }}"),
    (r"\$\(POD_NAME\)\.example\.com$", '"$(POD_NAME).{{ .Values.mesh.domain }}"'),
    (
        r'(name: DERP_MESH_WITH\n +value: )"(?:.*\\\n)*.*"$',
        (
            r'\1"{{ range $i := until (int .Values.mesh.replicas) }}{{ if $i }},{{ end }}'
            r'derper-{{ $i }}.{{ $.Values.mesh.domain }}/derper-{{ $i }}.derper-mesh{{ end }}"'
        ),
    ),
    (r"replicas: 2$", "replicas: {{ int .Values.mesh.replicas }}"),
    (r"storage: 64Mi$", "storage: {{ .Values.storage | quote }}"),
    (r"cpu: 250m$", "cpu: {{ .Values.cpu | quote }}"),
    (r"memory: 128Mi$", "memory: {{ .Values.memory | quote }}"),
    (r"secretName: derper$", "secretName: {{ .Values.secret | quote }}"),
    (r"(secretRef:\n +name: )derper-variables$", r"\1{{ .Values.variablesSecret | quote }}"),
    (
        r"nodeSelector:\n( +)derper: here$",
        r"nodeSelector:\n\1{{- toYaml .Values.nodeSelector | nindent 8 }}",
    ),
    (
        r"^( +)envFrom:$",
        (
            r"\1  {{- range $name, $value := .Values.variables }}\n"
            r"\1  - name: {{ $name }}\n"
            r"\1    value: {{ $value | quote }}\n"
            r"\1  {{- end }}\n"
            r"\1envFrom:"
        ),
    ),
    (
        r"(kind: Service\nmetadata:\n  name: derper\n)",
        (
            "\\1  {{- with .Values.serviceAnnotations }}\n"
            "  annotations:\n"
            "    {{- toYaml . | nindent 4 }}\n"
            "  {{- end }}\n"
        ),
    ),
)


def template(mode: str, plain: str) -> str:
    """Return the template that is made of a plain file."""
    text = _HEAD.sub("", plain)
    for pattern, value in _VALUES:
        text = re.sub(pattern, value, text, flags=re.MULTILINE)
    return f'{{{{- if eq .Values.mode "{mode}" }}}}\n{text}{{{{- end }}}}\n'


def description() -> str:
    """Return Chart.yaml."""
    return f"""\
apiVersion: v2
name: derper
description: A DERP relay and STUN responder for Tailscale clients
type: application
version: {derp.__version__}
appVersion: {derp.__version__}
"""


def files() -> dict[Path, str]:
    """Return the text of each file that is made, by its path below the chart."""
    made = {
        Path("templates", f"{mode}.yaml"): template(
            mode, (PLAIN / f"{mode}.yaml").read_text("utf-8")
        )
        for mode in MODES
    }
    return {Path("Chart.yaml"): description(), **made}


if __name__ == "__main__":
    for name, text in files().items():
        (CHART / name).write_text(text, "utf-8")
