"""`diffsearch demo`: a page on which one draws from a study's networks."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import click

from diffsearch.cli.places import Refused, check_address, open_folder, store_option
from diffsearch.cli.waiting import waiting
from diffsearch.errors import StoreError


@click.command()
@click.argument("study", metavar="STUDY")
@click.option("--port", type=click.IntRange(1, 65535), default=7860, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address that it answers at.")
@click.option("--share", is_flag=True, help="Also ask gradio's servers for a public link. Anyone who has it can draw.")
@store_option
def demo(study: str, port: int, host: str, share: bool, store: Path | None) -> None:
    """Draw from a study's networks on a page, and watch them denoise.

    Choose a run, its checkpoint and how it is sampled; go from one seed to another; see two runs on the same noise.
    """
    folder = open_folder(study, store)
    check_address(host, port)
    with waiting("opening the page"):
        if folder.header.extensions:
            from diffsearch import api

            api.open_study(folder.name, store=folder.store.root)  # imports the user's own files, as its networks need
        try:
            from diffsearch.demo import page
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise Refused("the page needs gradio, which isn't installed: pip install 'diffsearch[demo]'") from error
        from diffsearch.demo.networks import Networks

        try:
            networks = Networks(folder.store, folder.name)
        except StoreError as error:
            raise Refused(str(error)) from error
        served = page.serve(networks, host, port, share=share)
    click.echo(f"{served.url}   (Ctrl-C ends it)")
    if share:
        click.echo(served.public_url or "no public link: gradio's servers gave none. The page is here alone.")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


COMMANDS = (demo,)
