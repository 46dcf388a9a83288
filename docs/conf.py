"""Configuration of the documentation's build; it reads the package and changes nothing."""

import importlib
import inspect
import os
import pprint
import sys
from pathlib import Path
from types import GenericAlias

import dipkernels

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "dipkernels"
author = "The dipkernels authors"
copyright = author
version = release = dipkernels.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinxcontrib.bibtex",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "short_names",
    "atlas_page",
]
exclude_patterns = ["_build", "gallery"]
templates_path = ["_templates"]
default_role = "py:obj"

# Every reference resolves, or ends the build. Names of other packages are links where inventories
# can be fetched: on Read the Docs, or with DOCS_INVENTORIES=1; elsewhere they are shown as code.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(torch|scipy|jax|neural_tangents|abc|nn)(\..*)?")]
if os.environ.get("READTHEDOCS") or os.environ.get("DOCS_INVENTORIES"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "xarray": ("https://docs.xarray.dev/en/stable", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
    }

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Examples of `docs/gallery` run when pages are built; what fails ends the build.
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "subsection_order": [
        f"gallery/{name}" for name in ("fits", "kernels", "priors", "posteriors", "many")
    ],
    "filename_pattern": "/plot_",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "api/generated/backreferences",
    "doc_module": ("dipkernels",),
    "abort_on_example_error": True,
    "parallel": 2,
    "image_scrapers": ("matplotlib", "last_figure.scrape"),
    "ignore_repr_types": "matplotlib|'list'",
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "first_notebook_cell": "%matplotlib inline",  # a notebook shows a cell's last figure
    "reset_modules": ("matplotlib",),
}

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

# The docstrings give shapes and types; signatures stay short.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
toc_object_entries_show_parents = "hide"

html_math_renderer = "mathml"
copybutton_prompt_text = ">>> |\\.\\.\\. "
copybutton_prompt_is_regexp = True
html_theme = "pydata_sphinx_theme"
html_title = "dipkernels"
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "dipkernels"},
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {
    page: []
    for page in (
        "index",
        "installation",
        "quickstart",
        "reading-the-report",
        "tasks",
        "operators",
        "fitting",
        "stopping",
        "stopping.bands",
        "stopping.monitors",
        "stopping.published",
        "stopping.references",
        "stopping.twins",
        "sweeps",
        "covariance",
        "gp",
        "posterior",
        "fingerprints",
        "atlas",
        "theory",
        "priors",
    )
} | {
    page: []
    for page in ("notation", "design", "stability", "references", "contributing", "changelog")
}

PUBLIC_MODULES = (
    "networks",
    "networks.decoders",
    "networks.generators",
    "networks.hybrids",
    "networks.mixer",
    "networks.coordinates",
    "networks.resnet",
    "networks.self_attention",
    "networks.skip",
    "networks.swin",
    "networks.unet",
    "networks.vit",
    "tasks",
    "tasks.operators",
    "tasks.misfits",
    "images",
    "fitting",
    "stopping",
    "stopping.bands",
    "stopping.monitors",
    "stopping.published",
    "stopping.references",
    "stopping.twins",
    "gp",
    "sampling",
    "sampling.conformal",
    "sampling.uncertainty",
    "kernels",
    "kernels.stationary",
    "spectra",
    "theory",
    "linalg",
    "stages.comparison",
    "stages.comparison_plan",
    "stages.audits",
    "fingerprints",
    "sweep",
    "plotting",
    "reports",
    "storage",
    "planning",
    "priors.draws",
    "priors.linearised",
    "errors",
    "bridges.deepinv",
    "bridges.jax",
    "bridges.neural_tangents",
    "bridges.operators",
    "literature",
    "literature.dual_kernels",
    "literature.jacobians",
    "literature.non_local_means",
    "literature.patch_heads",
    "literature.poster",
    "literature.predictive",
)


# Only faces: modules with an ``__all__``, and single files that ``dipkernels.__all__`` names.
def public_names(module_name: str) -> dict[str, list[str]]:
    """What a module offers, by kind: its ``__all__``, or what it defines; data with values."""
    module = importlib.import_module(module_name)
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module_name
    ]
    found: dict[str, list[str]] = {"classes": [], "functions": [], "data": []}
    for name in getattr(module, "__all__", own):
        value = getattr(module, name)
        if isinstance(value, GenericAlias):
            continue  # the name of a type, of which a page would show dict's own docstring
        is_data = not (inspect.isclass(value) or inspect.isfunction(value))
        kind = "data" if is_data else "classes" if inspect.isclass(value) else "functions"
        found[kind].append(
            f"{name} = {pprint.pformat(value, width=130, sort_dicts=False)}" if is_data else name
        )
    return found


autosummary_context = {
    "public": {f"dipkernels.{name}": public_names(f"dipkernels.{name}") for name in PUBLIC_MODULES}
}
