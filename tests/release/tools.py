"""Programs that check what is released, built from their Go modules; in a go.mod of their own."""

from pathlib import Path

from tests.interop import golang

HERE = Path(__file__).resolve().parent / "gotools"

TOOLS = golang.Module(
    HERE,
    golang.BIN / "release",
    {
        "actionlint": "github.com/rhysd/actionlint/cmd/actionlint",
        "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
    },
)


def built() -> dict[str, Path]:
    """The path of each. Raises golang.NoGoError."""
    return golang.build(TOOLS)
