"""A study's records as one small file: what reports, tables and MLflow are made of, without networks to go on from.

Unpacked, it is a store: `tar xf FILE -C store`, then `diffsearch report STUDY --store store`. A run that is asked for
there again has its scores, and would be trained anew for others.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from diffsearch.files import replace_file
from diffsearch.store.runs import CURVES, SCORES
from diffsearch.study.history import HEADER, StudyFolder
from diffsearch.study.journal import FILE as JOURNAL
from diffsearch.study.ledger import FILE as LEDGER

STUDY_FILES = (HEADER, "study.yaml", LEDGER, JOURNAL)
RUN_FILES = ("run.json", CURVES, SCORES, "outcome.json")


def archive(folders: Sequence[StudyFolder], output: Path, pictures: Iterable[Path] = ()) -> int:
    """Write the records of some studies of one store as a tar file under xz; returns the number of files in it.

    In it are all runs that any form of the studies' files asked for. The same records give the same bytes.

    Args:
        folders: at least one, of one store.
        output: the file, replaced as a whole.
        pictures: further files of that store that are to lie beside the records, where they exist.

    Raises:
        StoreError: the file can't be written.
    """
    files = sorted({file for folder in folders for file in _records(folder)} | {*filter(Path.is_file, pictures)})
    replace_file(output, _packed(folders[0].store.root, files))
    return len(files)


def _records(folder: StudyFolder) -> Iterator[Path]:
    kept = [folder.path / name for name in STUDY_FILES]
    for key in {asked.run_key for asked in folder.ledger.asked}:
        kept += [folder.store.run(key).path / name for name in RUN_FILES]
    return filter(Path.is_file, kept)


def _packed(root: Path, files: Iterable[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            content = file.read_bytes()
            entry = tarfile.TarInfo(str(file.relative_to(root)))  # no owner and no time: they say nothing of the study
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return lzma.compress(buffer.getvalue(), preset=9)
