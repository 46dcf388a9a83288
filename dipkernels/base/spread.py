"""What stands under a table: over what its numbers spread, or that they have no spread."""

WHERE = 'see "Reproducibility" in the documentation'


def spread_words(seeds: int = 1) -> str:
    """Say in a few words over how many seeds a number is a mean."""
    return "one seed: no spread" if seeds == 1 else f"{seeds} seeds"


def spread_note(seeds: int = 1, *, single: str = "") -> str:
    """Say over how many seeds the numbers above are a mean and a standard deviation."""
    if seeds == 1:
        return f"{spread_words().capitalize()}; {WHERE}."
    said = f"Mean and standard deviation over {spread_words(seeds)}"
    return f"{said}; {single} are of one seed and have none." if single else f"{said}."
