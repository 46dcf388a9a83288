"""A CSV of finished units: written row by row, and read to know what is done."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path


class Table:
    """Rows with a key, in a file.

    Parameters
    ----------
    path : Path
        Of the CSV; made with the first row.
    columns : tuple of str
        Of every row.
    keys : tuple of str
        The columns that name a unit of work.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], keys: tuple[str, ...]) -> None:
        self.path, self.columns, self.keys = path, columns, keys

    def rows(self) -> list[dict[str, str]]:
        """Read all rows.

        Returns
        -------
        list of dict
            Of strings.
        """
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def done(self) -> set[tuple[str, ...]]:
        """Keys of the units that are finished.

        Returns
        -------
        set of tuple of str
            Without duplicates.
        """
        return {tuple(row[key] for key in self.keys) for row in self.rows()}

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Write finished rows at once.

        Parameters
        ----------
        rows : iterable of mapping
            Numbers are written with six digits.
        """
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            if new:
                writer.writeheader()
            writer.writerows(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
                for row in rows
            )
