"""What stands under a table: over what its numbers spread, or that they have no spread."""

WHERE = 'see "Reproducibility" in the documentation'


def short(seeds: int = 1) -> str:
    """Say in a few words over how many seeds a number is a mean.

    Parameters
    ----------
    seeds : int
        Of which it is made.

    Returns
    -------
    str
        For parentheses.
    """
    return "one seed: no spread" if seeds == 1 else f"{seeds} seeds"


def note(seeds: int = 1, *, single: str = "") -> str:
    """Say over how many seeds the numbers above are a mean and a standard deviation.

    Parameters
    ----------
    seeds : int
        Of which each number is made.
    single : str
        What is of the first seed alone all the same, as a subject in the plural.

    Returns
    -------
    str
        A sentence.
    """
    if seeds == 1:
        return f"{short().capitalize()}; {WHERE}."
    said = f"Mean and standard deviation over {short(seeds)}"
    return f"{said}; {single} are of one seed and have none." if single else f"{said}."
