"""What pyproject.toml can't say: the README of an index page, where relative links lead nowhere."""

import re
import tomllib
from pathlib import Path

RELATIVE_LINK = re.compile(r"(!?)\[([^\]]+)\]\((?!https?:|mailto:|#)([^)\s]+)\)")


def readme_of_index(text: str, source: str | None) -> str:
    """Lead relative links to the repository; where it has no address, name their files."""

    def absolute(link: re.Match[str]) -> str:
        image, label, path = link.groups()
        if source is not None:
            return f"{image}[{label}]({source}/{'raw' if image else 'blob'}/main/{path})"
        return f"`{path}`" if "`" in label or label == path else f"{label} (`{path}`)"

    return RELATIVE_LINK.sub(absolute, text)


if __name__ == "__main__":
    from setuptools import setup

    root = Path(__file__).parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(
        long_description=readme_of_index(
            (root / "README.md").read_text(encoding="utf-8"), project.get("urls", {}).get("Source")
        ),
        long_description_content_type="text/markdown",
    )
