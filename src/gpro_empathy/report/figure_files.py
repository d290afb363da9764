"""Save figures, for the paper and for the web."""

from pathlib import Path

from matplotlib.figure import Figure

from gpro_empathy import files

PNG_DPI = 150


def save(figure: Figure, path: Path) -> None:
    """Save a figure as <path>.pdf and <path>.png, each atomically, without dates and versions.

    Equal numbers give equal bytes.
    """
    undated = {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None}
    with files.atomic_path(path.with_suffix(".pdf")) as temporary:
        figure.savefig(temporary, metadata=undated)
    # The layout is worked out once, so that both files show the same.
    figure.set_layout_engine("none")
    with files.atomic_path(path.with_suffix(".png")) as temporary:
        figure.savefig(temporary, dpi=PNG_DPI, metadata={"Software": None})
