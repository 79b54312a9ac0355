#!/usr/bin/env python3
"""flip.py FOLDER MARKER: flips one bit in a record that holds the marker: in a segment if it stands in one, else in the WAL."""

import pathlib
import sys

folder, marker = sys.argv[1], sys.argv[2].encode()
places = [(path.suffix != ".log", path, path.read_bytes().find(marker)) for path in sorted(pathlib.Path(folder).rglob("*"))
          if path.is_file() and path.suffix in (".wal", ".log")]
places = sorted(place for place in places if place[2] >= 0)
if not places:
    sys.exit(f"no file below {folder} holds {marker}")
_, path, at = places[0]
with open(path, "r+b") as file:
    file.seek(at)
    byte = file.read(1)[0]
    file.seek(at)
    file.write(bytes([byte ^ 1]))
print("flipped a bit in", path, "at", at)
