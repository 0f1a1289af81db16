"""`python -m tools.measured`: rewrite every figure of the documents that stands between markers.

`--check` changes nothing and exits with 1 when a document differs from docs/measured.json.
"""

from __future__ import annotations

import argparse
import sys

from bench import measured
from tools.measured.documents import ROOT, documents, filled, templates


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.measured", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which documents differ")
    arguments = parser.parse_args()
    records, tables = measured.load(), templates()
    changed = []
    for page in documents():
        text = page.read_text()
        if (new := filled(text, tables, records)) != text:
            changed.append(str(page.relative_to(ROOT)))
            if not arguments.check:
                page.write_text(new)
    for name in changed:
        print(f"{name} {'differs from docs/measured.json' if arguments.check else 'rewritten'}")
    sys.exit(1 if arguments.check and changed else 0)


if __name__ == "__main__":
    main()
