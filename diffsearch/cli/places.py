"""Options that commands share, and which study, run and store their words mean. Imports neither torch nor Ray."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffsearch.errors import StoreError

if TYPE_CHECKING:
    from diffsearch.store import Store
    from diffsearch.study.history import StudyFolder
    from diffsearch.study.ledger import Asked

DEFAULT_STORE = Path(".diffsearch")
YAML_SUFFIXES = (".yaml", ".yml")
SHORT_KEY = 6  # letters of a run key that tables show

store_option = click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the store.  [default: the file's `store:`, else ./.diffsearch]",
)
tracking_option = click.option(
    "--tracking-uri", help="Of MLflow.  [default: MLFLOW_TRACKING_URI, else a SQLite file in the store]"
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Replace a value, e.g. training.epochs=[1,2]."
)
study_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


class Refused(click.ClickException):
    """What was asked for can't be done as it stands: one message, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(self.format_message(), err=True, file=file)


def is_file_name(target: str) -> bool:
    """Whether a STUDY argument is a path of a YAML file rather than a name in the store."""
    return target.endswith(YAML_SUFFIXES) or Path(target).is_file()


def open_store(root: Path | None) -> Store:
    """A store that exists; reading makes none."""
    from diffsearch.store import Store

    root = root or DEFAULT_STORE
    if not (root.expanduser() / "runs").is_dir():
        raise Refused(f"no store at {root}. `diffsearch run` makes it; --store says where it is.")
    return Store.open(root)


def open_folder(target: str, root: Path | None) -> StudyFolder:
    """The study that a name or a YAML file means, as the store has it."""
    from diffsearch.study.history import StudyFolder

    name = target
    if is_file_name(target):
        name, written = _name_and_store(Path(target))
        root = root or written
    try:
        return StudyFolder.open(open_store(root), name)
    except StoreError as error:
        raise Refused(str(error)) from error


def folders(store: Store) -> Iterator[StudyFolder]:
    """Every study of a store."""
    from diffsearch.study.history import HEADER, StudyFolder

    for name in store.studies():
        if (store.study(name) / HEADER).exists():
            yield StudyFolder.open(store, name)


def is_study(target: str, store: Store) -> bool:
    """Whether a STUDY|RUN argument means a study."""
    return is_file_name(target) or target in store.studies()


def asked_for(store: Store, prefix: str, study: str | None = None) -> list[tuple[StudyFolder, Asked]]:
    """Who asks for the run whose key begins so: every (study, request), or Refused where there is none.

    Raises:
        Refused: no run begins so, or several do.
    """
    among = [open_folder(study, store.root)] if study else list(folders(store))
    found = [(folder, asked) for folder in among for asked in folder.asked() if asked.run_key.startswith(prefix)]
    keys = sorted({asked.run_key for _, asked in found})
    where = f"study '{among[0].name}'" if study else str(store.root)
    if not keys:
        raise Refused(f"no run in {where} has a key that begins with '{prefix}'. `diffsearch table STUDY` lists them.")
    if len(keys) > 1:
        shown = ", ".join(key[: max(SHORT_KEY, len(prefix) + 2)] for key in keys[:6])
        raise Refused(f"{len(keys)} runs in {where} begin with '{prefix}': {shown}. Give more of the key.")
    return found


def check_address(host: str, port: int) -> None:
    """Refuse an address that no server can be opened at."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Refused(f"port {port} is taken. Choose another with --port.") from error
            raise Refused(f"nothing can answer at {host}, port {port}: {error.strerror}.") from error


def _name_and_store(path: Path) -> tuple[str, Path | None]:
    """The name and the store that a study file says, read without checking the rest."""
    import yaml

    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Refused(f"{path}: can't be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{path}: not a study file: {' '.join(str(error).split())}") from error
    plain = plain if isinstance(plain, dict) else {}
    written = plain.get("store")
    return str(plain.get("name") or path.stem), path.parent / str(written) if written else None
