"""The command line's verbs on apps: what shows a bundle's speed on a phone, in a browser or in an app of yours."""

import typer

app = typer.Typer(no_args_is_help=True, help="Build the benchmark app for phones, or serve it to browsers.")
