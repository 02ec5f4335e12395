"""Command classes: grouped `--help` output, examples, and rejection of repeated options.

typer formats groups and examples only with rich, which takes longer to import than `--help`
takes in all, and truncates lines that users copy.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.core import TyperCommand, TyperGroup

from marsretrieval.errors import UsageError

EXAMPLES = {
    "": """
marsretrieval demo                                  # all three tasks, offline
marsretrieval run -m pe-core-l-14-336 -t landform   # benchmark a model
marsretrieval search --store mars.store --text "pitted cones" -o cones.gpkg
""",
    "demo": """
marsretrieval demo
marsretrieval demo --size tiny --out small
""",
    "run": """
marsretrieval run -m mars-nano -t all --data planet
marsretrieval run -m marscope --checkpoint my.pt -t landform --dry-run
marsretrieval run -m my_module:MyEncoder -m pe-core-l-14-336 -t landform
""",
    "tasks": """
marsretrieval tasks
""",
    "doctor": """
marsretrieval doctor
""",
    "models list": """
marsretrieval models
marsretrieval models siglip
""",
    "models check": """
marsretrieval models check mars-nano
marsretrieval models check my_module:MyEncoder --device cpu
""",
    "score paired": """
marsretrieval score paired --images I.npy --texts T.npy
marsretrieval score paired --embeddings E.parquet --data planet --name mine
""",
    "score landform": """
marsretrieval score landform --images I.npy --labels L.json --queries Q.npy --json out.json
marsretrieval score landform --embeddings E.npz --data planet --name mine
""",
    "score geolocalization": """
marsretrieval score geolocalization --predictions P.csv --ground-truth G.csv
marsretrieval score geolocalization --embeddings E.parquet --data planet --name mine
""",
    "data items": """
marsretrieval data items -t landform --data planet -o items.parquet
""",
    "data synth": """
marsretrieval data synth --out planet --size tiny
marsretrieval data synth --out mars --seed 7 --dry-run
""",
    "data download": """
marsretrieval data download landform
marsretrieval data download paired --dry-run
""",
    "data tiles": """
marsretrieval data tiles --bbox 132,-8,140,0 --dry-run   # plan a download
marsretrieval data tiles quads --out tiles               # quads on this machine
marsretrieval data tiles image.tif --tile-m 250 --nodata 0 --out own   # your own raster
""",
    "data verify": """
marsretrieval data verify
marsretrieval data verify data -t landform
""",
    "embed": """
marsretrieval embed -m mars-nano --images tiles --store mars.store
marsretrieval embed -m marscope -m pe-core-l-14-336 --images tiles --store stores
marsretrieval embed -m marscope --images tiles --store mars.store --shard 1/8
""",
    "store info": """
marsretrieval store info mars.store
""",
    "store verify": """
marsretrieval store verify mars.store --repair
""",
    "store index": """
marsretrieval store index mars.store
""",
    "store export": """
marsretrieval store export mars.store -o mars.parquet
""",
    "store merge": """
marsretrieval store merge north.store south.store -o both.store
""",
    "store subset": """
marsretrieval store subset mars.store -o part.store --bbox=-180,-4,-176,0
""",
    "search": """
marsretrieval search --store mars.store --text "pitted cones" -o cones.gpkg
marsretrieval search --store mars.store --image cone1.png --bbox=-60,20,0,60 -o cones.csv
marsretrieval search --store mars.store --similar-to-location=137.4,-4.6 --merge-deg 0.5 -k 50
""",
    "inventory new": """
marsretrieval inventory new cones --store mars.store --text "pitted cones"
""",
    "inventory next": """
marsretrieval inventory next cones
marsretrieval inventory next cones -n 50 --json
""",
    "inventory sheet": """
marsretrieval inventory sheet cones -o page.png
""",
    "inventory mark": """
marsretrieval inventory mark cones ID1=yes ID2=no ID3=unsure
marsretrieval inventory mark cones --from marks.csv
""",
    "inventory learn": """
marsretrieval inventory learn cones
""",
    "inventory audit": """
marsretrieval inventory audit cones start --domain 6300 --target 0.2
marsretrieval inventory audit cones close
""",
    "inventory estimate": """
marsretrieval inventory estimate cones
""",
    "inventory export": """
marsretrieval inventory export cones -o places.gpkg -o ground_truth.csv -o report.md
""",
    "inventory update": """
marsretrieval inventory update cones --store mars.store
""",
    "serve": """
marsretrieval serve mars.store
marsretrieval serve mars.store --inventory cones.inventory
""",
    "report": """
marsretrieval report results
marsretrieval report results -o report.html
marsretrieval report results --details --latex
""",
    "compare": """
marsretrieval compare pe-core-l-14-336 marscope
marsretrieval compare A B -t landform
""",
    "results verify": """
marsretrieval results verify results/marscope
marsretrieval results verify results --json
""",
    "export mteb": """
marsretrieval export mteb results/marscope/paired-image-text.json -o mteb
""",
    "export hf": """
marsretrieval export hf results/marscope -o marscope.yaml
""",
}


# Earlier names of options: they work, and are not shown.
EARLIER_NAMES = ("--like", "--like-at", "--mix", "--not-image", "--not-like", "--not-text",
                  "--not-weight", "--raw")  # fmt: skip

# Readable names of typer's types, which some versions of typer write in brackets.
_METAVARS = {
    r"<list\[Path\]>|<path>": "PATH",
    r"<list\[str\]>|<str>": "TEXT",
    r"<(int|float)( range)?>|(INTEGER|FLOAT)( RANGE)?\b": "N",
}


_SECTIONS = re.compile(r"\n\n(Args|Raises):\n.*", re.DOTALL)


class Command(TyperCommand):
    """Command whose options are grouped and whose help omits the sections of its docstring."""

    def __init__(self, *args: Any, help: str | None = None, **settings: Any) -> None:
        super().__init__(*args, help=help and _SECTIONS.sub("", help), **settings)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of a command.

        Args:
            ctx: Context of the command.
            args: Arguments that follow the command's name.

        Returns:
            Arguments that are left over.

        Raises:
            UsageError: If a single-value option is repeated (click alone would use the last), a
                path is empty (it would be the current folder), or a number is NaN, infinite, or an
                integer beyond 64 bits.
        """
        _refuse_repeated(self, ctx, args)
        _refuse_empty_paths(self, ctx, args)
        rest: list[str] = super().parse_args(ctx, args)
        options = {param.name: param.opts[0] for param in self.get_params(ctx) if param.opts}
        for name, value in ctx.params.items():
            for number in value if _is_many(value) else [value]:
                if isinstance(number, float) and not math.isfinite(number):
                    raise UsageError(
                        f"{options.get(name, name)} {number}: not a finite number",
                        remedy="Give a decimal number, such as 0.5.",
                    )
                if isinstance(number, int) and abs(number) >= 2**63:
                    raise UsageError(
                        f"{options.get(name, name)}: an integer of {len(str(number))} digits",
                        remedy="Give one below 2^63.",
                    )
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, by group.

        Args:
            ctx: Context of the command.
            formatter: click's help formatter.
        """
        for title, rows in sections(self, ctx):
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples.

        Args:
            ctx: Context of the command.
            formatter: click's help formatter.
        """
        lines = examples(ctx)
        if lines:
            with formatter.section("Examples"):
                for line in lines:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(TyperGroup):
    """Command group whose help lists the commands by purpose."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options of the group itself.

        Args:
            ctx: Context of the group.
            args: Arguments that follow the group's name.

        Returns:
            Arguments that are left over: the command and its arguments.

        Raises:
            UsageError: If a single-value option is repeated.
        """
        _refuse_repeated(self, ctx, args)
        return list(super().parse_args(ctx, args))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, by purpose.

        Args:
            ctx: Context of the group.
            formatter: click's help formatter.
        """
        groups: dict[str, list[tuple[str, Any]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None:
                title = getattr(command, "rich_help_panel", None)
                groups.setdefault(title if isinstance(title, str) else "Commands", []).append(
                    (name, command)
                )
        width = max(len(name) for rows in groups.values() for name, _ in rows)
        text_width = formatter.width - width - 6
        for title, commands in groups.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (f"{name:{width}}", entry.get_short_help_str(text_width))
                        for name, entry in commands
                    ]
                )

    format_epilog = Command.format_epilog


def _refuse_repeated(command: Any, ctx: Any, args: list[str]) -> None:
    if ctx.resilient_parsing:
        return
    _, _, order = command.make_parser(ctx).parse_args(args=list(args))
    # --help takes precedence over all other options.
    if any(param.is_eager and param.is_flag for param in order):
        return
    for param in dict.fromkeys(order):
        if param.param_type_name != "option" or param.multiple or param.count:
            continue
        # Repeating a flag is harmless unless it has an opposite.
        if param.is_flag and not param.secondary_opts:
            continue
        times = order.count(param)
        if times > 1:
            name = "/".join([max(param.opts, key=len), *param.secondary_opts[:1]])
            raise UsageError(
                f"{name} is given {times} times but accepts one value", remedy="Give it once."
            )


def _refuse_empty_paths(command: Any, ctx: Any, args: list[str]) -> None:
    if ctx.resilient_parsing or "" not in [arg.rpartition("=")[2] for arg in args]:
        return
    values, _, order = command.make_parser(ctx).parse_args(args=list(args))
    if any(param.is_eager and param.is_flag for param in order):
        return
    types = get_type_hints(command.callback)
    for param in order:
        value = values.get(param.name)
        if _is_path(types.get(param.name)) and "" in (value if _is_many(value) else [value]):
            is_option = param.param_type_name == "option"
            name = param.opts[0] if is_option else param.metavar or param.name.upper()
            raise UsageError(
                f"{name}: an empty path",
                remedy="Name a file or folder; . is the current folder.",
            )


def _is_path(kind: Any) -> bool:
    return kind is Path or any(map(_is_path, get_args(kind)))


def _is_many(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def sections(command: Any, ctx: Any) -> list[tuple[str, list[tuple[str, str]]]]:
    """List the arguments and options of a command by help section.

    Args:
        command: A click command.
        ctx: Its context.

    Returns:
        Pairs (title, rows) in the order of `--help`; a row is (option, explanation).
    """
    rows_by_title: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None:
            continue
        default_title = "Arguments" if param.param_type_name == "argument" else "Options"
        title = getattr(param, "rich_help_panel", None)
        rows = rows_by_title.setdefault(title if isinstance(title, str) else default_title, [])
        syntax, explanation = record
        for name in EARLIER_NAMES:
            syntax = re.sub(rf", {name}(?![\w-])", "", syntax)
        for pattern, metavar in _METAVARS.items():
            syntax = re.sub(pattern, metavar, syntax)
        rows.append((syntax, explanation))
    return list(rows_by_title.items())


def examples(ctx: Any) -> list[str]:
    """Return the example command lines of a command.

    Args:
        ctx: Context of the command.

    Returns:
        One command line per item; empty if the command has no examples.
    """
    names: list[str] = []
    while ctx.parent is not None:
        names.insert(0, ctx.info_name)
        ctx = ctx.parent
    return EXAMPLES.get(" ".join(names), "").strip().splitlines()
