"""Tables of numbers, none of which is ever cut, however narrow the terminal is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from bestofn.cli.app import console

Cell = str | Text
GAP = 1  # columns between two of a table
HEADINGS = range(15, 7, -1)  # how wide a heading may make a column before it folds
NAME = 20  # columns that the names of rows keep where there is room for a number beside them


@dataclass(frozen=True, slots=True)
class Column:
    """Numbers under a heading, one for each row; an empty cell is empty."""

    heading: str
    cells: Sequence[Cell]

    def width(self, heading: int) -> int:
        """That of its widest number, or of a heading that folds at so many columns."""
        lines = [line for cell in self.cells for line in str(cell).split("\n")]
        numbers = max((Text(line).cell_len for line in lines), default=0)
        whole = max(Text(part).cell_len for part in self.heading.split("\n"))
        return max(numbers, min(whole, heading))


def show_table(title: str, corner: str, names: Sequence[Cell], columns: Sequence[Column]) -> None:
    """Prints a row for each name; names fold where they are long.

    Columns that do not fit beside the names go into another table below.

    Args:
        title: Of the table.
        corner: The heading of the names.
        names: Of the rows.
        columns: The numbers.
    """
    longest = _longest(corner, names)
    widest = max(_taken([column], HEADINGS[-1]) for column in columns)
    least = max(1, min(longest, NAME, console.width - widest))
    space = console.width - least
    heading = next((size for size in HEADINGS if _taken(columns, size) <= space), HEADINGS[0])
    for number, block in enumerate(_blocks(columns, heading, space)):
        width = max(min(longest, console.width - _taken(block, heading)), least)
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
        table.add_column(corner, width=width, overflow="fold")
        for column in block:
            above = Text(column.heading, justify="right", overflow="fold")
            table.add_column(above, width=column.width(heading), justify="right")
        for row, name in enumerate(names):
            table.add_row(_text(name), *(_text(column.cells[row]) for column in block))
        console.print(Text(title if not number else f"{title} (continued)", "italic"))
        console.print(table)


def fits(corner: str, names: Sequence[Cell], columns: Sequence[Column]) -> bool:
    """Whether it is one table, in which no name or heading folds."""
    return _longest(corner, names) + _taken(columns, HEADINGS[0]) <= console.width


def _longest(corner: str, names: Sequence[Cell]) -> int:
    return max(Text(str(name)).cell_len for name in (corner, *names))


def _taken(columns: Sequence[Column], heading: int) -> int:
    return sum(column.width(heading) + GAP for column in columns)


def _text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def _blocks(columns: Sequence[Column], heading: int, width: int) -> Iterator[list[Column]]:
    """As many columns at a time as fit, at least one."""
    block: list[Column] = []
    for column in columns:
        if block and _taken([*block, column], heading) > width:
            yield block
            block = []
        block.append(column)
    yield block
