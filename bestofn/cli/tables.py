"""Tables of numbers, none of which is ever cut, however narrow the terminal is."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from bestofn.cli.app import console

Cell = str | Text
Column = tuple[str, Sequence[Cell]]
"""A heading, and a number for each row."""

GAP = 1  # columns between two of a table
HEADING = 15  # how wide a heading may make a column before it folds
NAME = 20  # columns that the names of rows keep where there is room for a number beside them


def show_table(title: str, corner: str, names: Sequence[Cell], columns: Sequence[Column]) -> None:
    """Prints a row for each name; names fold where they are long.

    Columns that do not fit beside the names go into another table below.

    Args:
        title: Of the table.
        corner: The heading of the names.
        names: Of the rows.
        columns: The numbers.
    """
    longest = _width(corner, *names)
    widest = max(_taken([column]) for column in columns)
    least = max(1, min(longest, NAME, console.width - widest))
    blocks: list[list[Column]] = [[]]
    for column in columns:
        if blocks[-1] and _taken([*blocks[-1], column]) > console.width - least:
            blocks.append([])
        blocks[-1].append(column)
    for number, block in enumerate(blocks):
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
        width = max(min(longest, console.width - _taken(block)), least)
        table.add_column(corner, width=width, overflow="fold")
        for column in block:
            above = Text(column[0], justify="right", overflow="fold")
            table.add_column(above, width=_taken([column]) - GAP, justify="right")
        for row, name in enumerate(names):
            table.add_row(*(Text() + cell for cell in (name, *(cells[row] for _, cells in block))))
        console.print(Text(title if not number else f"{title} (continued)", "italic"))
        console.print(table)


def show_summary(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        console.print(Text(f"- {sentence}"))


def _taken(columns: Sequence[Column]) -> int:
    return sum(
        max(_width(*cells), min(_width(heading), HEADING)) + GAP for heading, cells in columns
    )


def _width(*cells: Cell) -> int:
    return max(Text(line).cell_len for cell in cells for line in str(cell).split("\n"))
