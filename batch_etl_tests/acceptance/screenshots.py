"""The pictures of Dagster's pages in the documentation, taken anew: ``make screenshots``.

The same errands as the test's, on a ``batch-etl dev`` of their own with the emulator. A page has
few colours: with a palette of 64 a picture is a third as large and looks the same.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from batch_etl_tests.acceptance.dev_site import dev_site
from batch_etl_tests.acceptance.ui_tour import tour

_COLOURS = 64
MOST_BYTES = 100_000


def main(pictures: Path) -> None:
    """Take all pictures, and write them to the folder once all errands went well."""
    with tempfile.TemporaryDirectory(prefix="batch_etl_") as name, dev_site(Path(name)) as site:
        tour(site, Path(name))
        pictures.mkdir(parents=True, exist_ok=True)
        for path in sorted(Path(name).glob("*.png")):
            smaller(path, pictures / path.name)


def smaller(taken: Path, kept: Path) -> None:
    with Image.open(taken) as picture:
        picture.convert("RGB").quantize(_COLOURS).save(kept, optimize=True)
    size_bytes = kept.stat().st_size
    print(f"{kept}: {size_bytes:,} bytes")
    assert size_bytes <= MOST_BYTES, f"{kept} is too large for a repository"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
